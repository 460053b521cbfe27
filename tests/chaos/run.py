"""Many episodes at once, each in name spaces of its own (mounts, processes, network).

    run.py --episodes 500                     seeds 1 to 500
    run.py --seed 123                         the episode of one seed again
    run.py --episodes 100 --seed 401          seeds 401 to 500: how a run goes on that was ended

Where the user is root every process of an episode is a user of its own; otherwise all are one user in a user name
space. Last line: episodes=... violations=...; exit code 1 with violations. Logs of episodes with violations are kept.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

EPISODE = Path(__file__).with_name("episode.py")
_LONGEST_S = 400.0


def missing() -> str:
    """Say why episodes cannot run here; "" when they can."""
    absent = [name for name in ("influxd", "unshare", "setpriv", "ip", "mount") if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (apt install influxdb util-linux iproute2)"
    done = subprocess.run([*_spaces(), "true"], check=False, capture_output=True, text=True)
    return f"no name spaces: {done.stderr.strip()}" if done.returncode else ""


def compile_sources() -> None:
    """Compile the sources once, as an installation does: the users of an episode may not write beside them."""
    folders = [EPISODE.parents[2] / name for name in ("core", "agent", "optimizer", "tests/chaos")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=False, stdout=subprocess.DEVNULL)


def _spaces() -> list[str]:
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *own, "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]


def episode(seed: int, keep: Path, mutant: str = "", *, is_calm: bool = False) -> dict[str, object]:
    """Run one episode in its own processes and return its result; one that does not end is a violation."""
    with tempfile.TemporaryDirectory(prefix="powerhall-chaos-") as folder:
        Path(folder).chmod(0o755)
        command = [*_spaces(), sys.executable, str(EPISODE), "--seed", str(seed), "--folder", folder]
        command += [
            "--keep",
            str(keep / str(seed)),
            *(["--mutant", mutant] if mutant else []),
            *(["--calm"] if is_calm else []),
        ]
        env = dict(os.environ) | ({} if os.geteuid() == 0 else {"CHAOS_ONE_USER": "1"})
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False, env=env)
        except subprocess.TimeoutExpired:
            return _broken(seed, f"did not end within {_LONGEST_S:.0f} s")
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return _broken(seed, done.stderr[-2000:])


def _broken(seed: int, text: str) -> dict[str, object]:
    return {"seed": seed, "violations": [{"rule": "harness", "time_s": 0.0, "text": text}], "faults": [], "cpu_s": 0.0}


def run(
    seeds: list[int], jobs: int, keep: Path, mutant: str = "", *, minutes: float = 1e9, out=sys.stderr
) -> list[dict[str, object]]:
    """Run the episodes of these seeds, `jobs` at a time, with a line for each that breaks a promise.

    None begins after this many minutes.
    """
    begin_s = time.monotonic()

    def one(seed: int) -> dict[str, object] | None:
        is_over = time.monotonic() - begin_s > minutes * 60.0
        return None if is_over else episode(seed, keep, mutant)

    results: list[dict[str, object]] = []
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(one, seed): seed for seed in seeds}
        for future in concurrent.futures.as_completed(waiting):
            if (result := future.result()) is None:
                continue
            results.append(result)
            for violation in result["violations"]:
                bad += 1
                print(
                    f"seed {result['seed']}: {violation['rule']} at {violation['time_s']} s: {violation['text']}",
                    file=out,
                )
            if len(results) % 10 == 0 or result["violations"]:
                spent_s = time.monotonic() - begin_s
                print(
                    f"{len(results)} of {len(seeds)} episodes, {bad} violations, {spent_s:.0f} s", file=out, flush=True
                )
    return sorted(results, key=lambda result: result["seed"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, help="how many (default: 1 with --seed, else 500)")
    parser.add_argument("--seed", type=int, help="the first seed (default 1)")
    parser.add_argument("--jobs", type=int, default=4 * (os.cpu_count() or 1), help="at a time (default: 4 per core)")
    parser.add_argument("--keep", type=Path, default=Path("out/chaos"), help="where results and logs go")
    parser.add_argument("--mutant", default="", help="a broken variant of mutants.py")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no episode after so many minutes")
    arguments = parser.parse_args()
    if reason := missing():
        print(f"chaos: {reason}", file=sys.stderr)
        return 2
    count = arguments.episodes or (1 if arguments.seed is not None else 500)
    first = 1 if arguments.seed is None else arguments.seed
    keep = arguments.keep.resolve()
    keep.mkdir(parents=True, exist_ok=True)
    compile_sources()
    results = run(list(range(first, first + count)), arguments.jobs, keep, arguments.mutant, minutes=arguments.minutes)
    with (keep / "results.jsonl").open("a") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
    rules = Counter(violation["rule"] for result in results for violation in result["violations"])
    bad = [result["seed"] for result in results if result["violations"]]
    faults = sum(len(result["faults"]) for result in results)
    has_users = os.geteuid() == 0 and os.environ.get("CHAOS_ONE_USER") != "1"
    users = "users of their own" if has_users else "one user"
    last = max((int(str(result["seed"])) for result in results), default=first)
    print(f"seeds {first} to {last}, {faults} faults, {users}; by rule {dict(rules)}; seeds {bad}")
    print(f"episodes={len(results)} violations={rules.total()}")
    return 1 if rules else 0


if __name__ == "__main__":
    raise SystemExit(main())
