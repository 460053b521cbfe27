"""However the demo ends, no process that it started goes on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_the_demo(number: signal.Signals, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from powerhall_twin.entry import main; raise SystemExit(main())",
        "demo",
        "--out",
        str(tmp_path),
        "--no-compare",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        deadline_s = time.monotonic() + 60
        agents: list[psutil.Process] = []
        while len(agents) < 4 and time.monotonic() < deadline_s:  # two daemons and two workers
            time.sleep(0.2)
            found = psutil.Process(demo.pid).children(recursive=True)
            agents = [child for child in found if "agent" in " ".join(child.cmdline())]
        assert len(agents) >= 4, "the demo started"
        time.sleep(1.0)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        assert demo.wait(timeout=40) in (143, -9)
    _, alive = psutil.wait_procs(children, timeout=15)
    for child in alive:
        child.kill()
    assert alive == []
