"""What is compiled once serves every policy: a replay afterwards compiles nothing."""

import json
import subprocess
import sys

TEXT = """
import json, sys
from powerhall_twin.replay import compiling
from powerhall_twin.engine import job_arrays, meter, occupancy, queue_passes, reservations
from powerhall_twin.cli import main

modules = (job_arrays, meter, occupancy, queue_passes, reservations)
found = {n: k for m in modules for n, k in vars(m).items() if hasattr(k, "signatures")}
kernels = {n: k for n, k in found.items() if type(k._cache).__name__ != "NullCache"}
compiling.compile_kernels()
before = {name: len(kernel.signatures) for name, kernel in kernels.items()}
code = main(sys.argv[1:])
after = {name: len(kernel.signatures) for name, kernel in kernels.items()}
print(json.dumps({"code": code, "before": before, "after": after, "warm": compiling.kernel_cache().warm}))
"""


def test_every_kernel_is_compiled_before_a_replay(demo_folder, tmp_path):
    jobs = tmp_path / "jobs.csv"
    rows = "".join(f"j{i},{8 * (1 + i % 3)},1800,{1_784_109_600 + 60 * i}\n" for i in range(12))
    jobs.write_text("job_id,gpus,duration_s,submit_s\n" + rows, encoding="utf-8")
    options = ["replay", "--site", str(demo_folder / "site.toml"), "--jobs", str(jobs), "--length", "1h", "--json"]
    options += ["--policies", "fcfs,easy,conservative,density,uniform,lowcap,tdp"]
    done = subprocess.run([sys.executable, "-c", TEXT, *options], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == 0
    assert told["warm"]
    assert len(told["before"]) >= 14
    assert told["before"] == told["after"]
    assert [name for name, count in told["before"].items() if count == 0] in ([], ["rooms_over"])
