"""Random sites with their queues for benchmarks: halls of racks with losses, plants that follow the weather, tariffs.

A site is made from its number of nodes, jobs and halls and a seed; the same arguments give the same snapshot.
"""

from __future__ import annotations

import random
import tempfile
from math import cos, log2, pi
from pathlib import Path

from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot
from powerhall.site.site_file import read_site
from powerhall.site.topology import Site

START_S = 1_784_073_600  # 2026-07-15T00:00Z
SLOT_S = 300
NODE_W = 10_200
_NODE = """
[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "1.8 kW"
max_power = "10.2 kW"
liquid_fraction = 0.7
modes = [
  {name = "p700", gpu_power = "970 W", speed = 1.0},
  {name = "p600", gpu_power = "835 W", speed = 0.96},
  {name = "p500", gpu_power = "718 W", speed = 0.91},
  {name = "p400", gpu_power = "601 W", speed = 0.80},
]
"""


def site_of(nodes: int, halls: int, seed: int, name: str = "bench") -> Site:
    """Return a site of `nodes` nodes, four a rack and eight racks a row, in halls of equal size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "site.toml")
        path.write_text(site_text(nodes, halls, seed, name))
        return read_site(path)[0]


def site_text(nodes: int, halls: int, seed: int, name: str = "bench") -> str:
    """Return the site file of `site_of`."""
    draw = random.Random(f"site {nodes} {halls} {seed}")
    full = nodes * NODE_W
    text = f'[site]\nname = "{name}"\npower_limit = "{full * draw.uniform(0.72, 0.9):.0f} W"\n'
    text += '[planning]\nweather = "weather.csv"\nprices = "prices.csv"\n' + _NODE
    for hall in range(halls):
        text += _hall(f"hall{hall + 1}", (nodes // 4) // halls + (hall < (nodes // 4) % halls), draw)
    text += f'[[events]]\nzone = "{name}"\nstart = {START_S + 18 * 3600}\nend = {START_S + 20 * 3600}\n'
    return text + "reduce_percent = 20.0\n"


def _hall(name: str, racks: int, draw: random.Random) -> str:
    full = racks * 4 * NODE_W
    text = f'\n[[halls]]\nname = "{name}"\npower_limit = "{full * draw.uniform(0.8, 0.95):.0f} W"\n'
    text += f'losses = {{fixed = "{full * 0.004:.0f} W", linear = 0.03, quadratic_per_w = {0.02 / full:.3e}}}\n'
    rack = f', power_limit = "{4 * NODE_W * 0.93:.0f} W"' if draw.random() < 0.4 else ""
    rows = [min(8, racks - first) for first in range(0, racks, 8)]
    row = [
        f'{{name = "r{n}", racks = [{{node_type = "h100", count = {k}, nodes = 4{rack}}}]}}' for n, k in enumerate(rows)
    ]
    text += f"rows = [{', '.join(row)}]\n"
    if draw.random() < 0.5:
        liquid, air = full * draw.uniform(0.62, 0.72), full * draw.uniform(0.31, 0.38)
        return text + (
            f'cooling = [{{kind = "dry_cooler", serves = "liquid", capacity = "{liquid:.0f} W", '
            f'supply_temp = "45 degC", rated_ambient = "33 degC", approach_k = 8.0, '
            f'fan_power = "{full * 0.012:.0f} W"}},\n'
            f'{{kind = "tower_chiller", serves = "air", capacity = "{air:.0f} W", supply_temp = "20 degC", cop = 6.0, '
            f'fan_power = "{full * 0.004:.0f} W", pump_power = "{full * 0.003:.0f} W"}}]\n'
        )
    every = full * draw.uniform(0.9, 1.05)
    return (
        text
        + f'cooling = [{{kind = "tower_chiller", capacity = "{every:.0f} W", supply_temp = "24 degC", cop = 6.0}}]\n'
    )


def jobs_of(site: Site, count: int, slots: int, seed: int, demand: float = 1.4) -> tuple[Job, ...]:
    """Return a queue that wants `demand` times the GPU hours that the site has within the horizon."""
    draw = random.Random(f"jobs {count} {seed}")
    gpus = sum(len(rack.nodes) for hall in site.halls for row in hall.rows for rack in row.racks) * 8
    fewest = min(sum(len(rack.nodes) for row in hall.rows for rack in row.racks) for hall in site.halls) * 8
    span_s = slots * SLOT_S
    typical = demand * gpus * span_s / 3600 / (count * 8.0)
    largest = 2 ** ((fewest // 2).bit_length() - 1)
    sizes = [min(largest, 2 ** max(0, round(log2(typical) - 0.5 + draw.gauss(0, 1.3)))) for _ in range(count)]
    hours = [draw.lognormvariate(0, 0.8) for _ in range(count)]
    scale = demand * gpus * span_s / 3600 / sum(a * b for a, b in zip(sizes, hours, strict=True))
    hours = [min(36.0, max(0.25, hour * scale)) for hour in hours]
    jobs = []
    for number, (size, hour) in enumerate(zip(sizes, hours, strict=True)):
        released = START_S + (0 if draw.random() < 0.6 else draw.uniform(0, 0.7) * span_s)
        late = released + hour * 3600 * draw.uniform(2, 8) if draw.random() < 0.15 else None
        weight = draw.choice([0.5, 1.0, 1.0, 1.0, 2.0, 4.0])
        jobs.append(
            Job(
                f"j{number:05d}",
                size,
                hour * 3600,
                START_S - draw.uniform(0, 86400),
                weight=weight,
                earliest_s=released,
                deadline_s=late,
            )
        )
    return tuple(jobs)


def snapshot_of(site: Site, jobs: tuple[Job, ...], slots: int, seed: int) -> Snapshot:
    """Return a snapshot on a hot day with a dear evening."""
    draw = random.Random(f"day {seed}")
    mean, swing = draw.uniform(20, 28), draw.uniform(5, 9)
    hour = [(slot * SLOT_S / 3600) % 24 for slot in range(slots)]
    dry = [round(mean - swing * cos((h - 3) / 12 * pi), 2) for h in hour]
    wet = [round(0.6 * d + 3.0, 2) for d in dry]
    price = [round(60 - 25 * cos((h - 4) / 12 * pi) + (90 if 18 <= h < 21 else 0), 2) for h in hour]
    return Snapshot(START_S, START_S, SLOT_S, slots, site, jobs, tuple(dry), tuple(wet), tuple(price))
