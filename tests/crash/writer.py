"""The process that the crash loop kills: it spools numbered points and ships them.

Usage: writer.py SPOOL URL PROMISES FIRST [drain]. After `append` has returned, the numbers of its points stand in
PROMISES. With `drain` nothing is appended and the process ends when the spool is empty.
"""

import io
import random
import sys
import time
from pathlib import Path

import msgspec

from powerhall.runtime.log import Log
from powerhall_agent.delivery.pipeline import OutputPipeline
from powerhall_agent.settings.agent_settings import OutputSettings, ShipSettings, load_settings


def main() -> int:
    folder, url, promises, first = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    settings = msgspec.structs.replace(
        load_settings(None, spool=str(folder), overrides={"spool": {"segment_bytes": 4096}}),
        ship=ShipSettings(interval_s=0.01, backoff_max_s=0.05, timeout_s=5, backlog_factor=100),
    )
    pipeline = OutputPipeline(settings, OutputSettings(url=url), Log(io.StringIO()))
    pipeline.start()
    if sys.argv[5:] == ["drain"]:
        end = time.monotonic() + 120
        while pipeline.spool.stats().points_waiting and time.monotonic() < end:
            pipeline.shipper.notify()
            time.sleep(0.02)
        left = pipeline.spool.stats().points_waiting
        pipeline.stop(time.monotonic() + 2)
        pipeline.join(2)
        return 1 if left else 0
    dice = random.Random(first)
    number, told = first, promises.open("a")
    while True:
        count = dice.randint(1, 5)
        base_ms = time.time_ns() // 1_000_000
        numbers = range(number, number + count)
        lines = "".join(f"crash,life={first} number={n}.0 {base_ms + n - number}\n" for n in numbers)
        number += count
        pipeline.append(lines.encode())
        told.write("".join(f"{n}\n" for n in numbers))
        told.flush()
        time.sleep(count / 1000)  # so that no two points of one life have the same millisecond


if __name__ == "__main__":
    raise SystemExit(main())
