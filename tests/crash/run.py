"""Kill -9 loop: a spool and shipper in front of a real InfluxDB whose answers are refusals, lost or garbled.

Usage: run.py --kills 500 [--seed 1]. Exit code 0 when no acknowledged append is lost and no point is visible twice.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rigs import flaky, influxdb

_WRITER = Path(__file__).with_name("writer.py")


def crash_loop(rig: influxdb.InfluxRig, kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Run the loop and count acknowledged, lost and doubled points."""
    database = rig.database("crash")
    promises = folder / "promises"
    dice = random.Random(seed)
    with flaky.start(flaky.Flaky(rig.shim_port, seed=seed)) as proxy:
        url = f"influxdb://127.0.0.1:{proxy.port}/{database}?version=2"
        for life in range(1, kills + 1):
            command = [sys.executable, str(_WRITER), str(folder / "spool"), url, str(promises), str(life * 1_000_000)]
            before = promises.stat().st_size if promises.exists() else 0
            victim = subprocess.Popen(command)
            deadline = time.monotonic() + 20
            while (not promises.exists() or promises.stat().st_size == before) and time.monotonic() < deadline:
                if victim.poll() is not None:
                    raise RuntimeError(f"the writer ended by itself with {victim.returncode}")
                time.sleep(0.005)
            time.sleep(dice.uniform(0.0, 0.08))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        drain = [sys.executable, str(_WRITER), str(folder / "spool"), url, str(promises), "0", "drain"]
        left = subprocess.run(drain, timeout=180, check=False).returncode
    promised = {int(line) for line in promises.read_text().split()}
    numbers = _numbers(rig, database)
    return {
        "kills": kills,
        "promised_points": len(promised),
        "lost_points": len(promised - set(numbers)),
        "doubled_points": len(numbers) - len(set(numbers)),
        "undrained": left,
        **{f"answers_{kind}": count for kind, count in sorted(proxy.seen.items())},
    }


def _numbers(rig: influxdb.InfluxRig, database: str) -> list[int]:
    form = urllib.parse.urlencode({"db": database, "q": "SELECT number FROM crash"}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.port}/query", form, timeout=60) as answer:
        series = json.load(answer)["results"][0].get("series", [])
    return [round(value) for entry in series for _, value in entry["values"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with influxdb.start() as rig, tempfile.TemporaryDirectory(prefix="powerhall-crash-") as folder:
        started = time.monotonic()
        result = crash_loop(rig, arguments.kills, arguments.seed, Path(folder))
    print(json.dumps({**result, "seconds": round(time.monotonic() - started, 1)}, indent=1))
    return 1 if result["lost_points"] or result["doubled_points"] or result["undrained"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
