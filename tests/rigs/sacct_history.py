"""A small site, and histories on it as sacct prints them."""

from collections.abc import Sequence
from datetime import UTC, datetime

START_S = 1_782_864_000
SITE = """\
[site]
name = "lab"
power_limit = "27 kW"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "1.8 kW"
max_power = "10.2 kW"
modes = [
  { name = "p700", gpu_power = "970 W", speed = 1.00, gpu_power_limit = "700 W" },
  { name = "p400", gpu_power = "601 W", speed = 0.80, gpu_power_limit = "400 W" },
]

[[halls]]
name = "hall1"
rows = [{ name = "a", racks = [{ node_type = "h100", name = "r1", nodes = "gn[01-04]" }] }]
cooling = [{ name = "chiller", kind = "fixed", capacity = "60 kW", cop = 5.0 }]
"""


def stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def sacct(rows: Sequence[tuple[float, float, float, int]], nodes: str = "gn01", state: str = "COMPLETED") -> str:
    """Return sacct's text of rows (submission, start, length, GPUs), times in s from START_S."""
    lines = ["JobIDRaw|Submit|Start|Elapsed|AllocTRES|Partition|State|NodeList"]
    for number, (ready_s, start_s, length_s, gpus) in enumerate(rows, 1):
        hours, rest = divmod(int(length_s), 3600)
        elapsed = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
        begin = f"{stamp(START_S + ready_s)}|{stamp(START_S + start_s)}|{elapsed}"
        lines.append(f"{number}|{begin}|billing=1,gres/gpu={gpus}|train|{state}|{nodes}")
    return "\n".join(lines) + "\n"
