"""A random small site and queue as an operator has them: numbers in a site file and jobs, which can be edited."""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from powerhall.jobs import Job
from powerhall.timeseries import parse_time
from powerhall.units import parse_power

START_S = 1_782_864_000
NODE_W = 10_200.0


@dataclass
class OperatedSite:
    """Limits in W by zone, capacities of plants in W by hall; halls of two rows with racks of four nodes."""

    limits_w: dict[str, float] = field(default_factory=dict)
    plants_w: dict[str, float] = field(default_factory=dict)
    halls: tuple[str, ...] = ("h1", "h2")
    quadratic: float = 0.0

    def text(self) -> str:
        """Return site.toml."""
        parts = [
            '[site]\nname = "lab"', self._limit("lab"),
            '[node_types.h100]\ngpu = "H100"\ngpus = 8\nidle_power = "1.8 kW"\nmax_power = "10.2 kW"',
            'modes = [{name = "p700", gpu_power = "970 W", speed = 1.0}, '
            '{name = "p500", gpu_power = "730 W", speed = 0.87}]',
        ]  # fmt: skip
        for hall in self.halls:
            parts += ["[[halls]]", f'name = "{hall}"', self._limit(hall)]
            parts.append(f'losses = {{fixed = "300 W", linear = 0.02, quadratic_per_w = {self.quadratic}}}')
            if hall in self.plants_w:
                fan = f'fan_power = "{self.plants_w[hall] * 0.03:.3f} W"'
                capacity = f'capacity = "{self.plants_w[hall]!r} W"'
                parts.append(f'cooling = [{{kind = "fixed", {capacity}, cop = 4.0, {fan}}}]')
            rows = []
            for row in ("r1", "r2"):
                rack = f'{{name = "k", node_type = "h100", nodes = 2{self._inline(f"{hall}/{row}/k")}}}'
                rows.append(f'{{name = "{row}"{self._inline(f"{hall}/{row}")}, racks = [{rack}]}}')
            parts.append(f"rows = [{', '.join(rows)}]")
        return "\n".join(part for part in parts if part) + "\n"

    def _limit(self, zone: str) -> str:
        return f'power_limit = "{self.limits_w[zone]!r} W"' if zone in self.limits_w else ""

    def _inline(self, zone: str) -> str:
        return f", {self._limit(zone)}" if zone in self.limits_w else ""

    def write(self, path: Path) -> Path:
        path.write_text(self.text())
        return path


def random_case(draw: random.Random) -> tuple[OperatedSite, tuple[Job, ...]]:
    """Return a site that is short of something, and its queue."""
    site = OperatedSite(halls=("h1", "h2")[: draw.randint(1, 2)], quadratic=draw.choice([0.0, 1e-6]))
    full_w = 4 * NODE_W
    idle_w = 4 * 1800.0
    if draw.random() < 0.6:
        most_w = full_w * len(site.halls) * 1.4
        site.limits_w["lab"] = float(round(draw.uniform(0.45, 0.8) * most_w + 2000))
    for hall in site.halls:
        if draw.random() < 0.4:
            site.limits_w[hall] = float(round(draw.uniform(idle_w + 6000, full_w)))
        if draw.random() < 0.6:
            site.plants_w[hall] = float(round(draw.uniform(idle_w + 8000, full_w * 1.1)))
        for row in ("r1", "r2"):
            if draw.random() < 0.25:
                site.limits_w[f"{hall}/{row}"] = float(round(draw.uniform(idle_w / 2 + 4000, full_w / 2)))
            if draw.random() < 0.15:
                site.limits_w[f"{hall}/{row}/k"] = float(round(draw.uniform(idle_w / 2 + 4000, full_w / 2)))
    return site, tuple(_job(draw, number, site.halls) for number in range(draw.randint(8, 14)))


def _job(draw: random.Random, number: int, halls: tuple[str, ...]) -> Job:
    hours = draw.choice([1.0, 2.0, 3.0, draw.uniform(0.2, 5)])
    job = Job(
        f"j{number}", draw.choice([1, 2, 4, 8, 8, 16, 24]), hours * 3600,
        weight=draw.choice([1.0, 1.0, 2.0, round(draw.uniform(0.2, 4), 2)]),
        halls=(draw.choice(halls),) if draw.random() < 0.2 else (),
    )  # fmt: skip
    if draw.random() < 0.15:
        job = msgspec.structs.replace(job, deadline_s=START_S + hours * 3600 * draw.choice([0.8, 1.3, 2.0]))
    return job


def edited(site: OperatedSite, jobs: tuple[Job, ...], items: tuple[str, ...]) -> tuple[OperatedSite, tuple[Job, ...]]:
    """Return site and queue with what an explanation names, changed as an operator changes files."""
    limits_w, plants_w = dict(site.limits_w), dict(site.plants_w)
    for item in items:
        target, _, value = item.partition("=")
        name, _, what = target.rpartition(".")
        if target == "grid":
            limits_w["lab"] += parse_power(value.removeprefix("+"))
        elif what == "power":
            limits_w[name] += parse_power(value.removeprefix("+"))
        elif what == "cooling":
            plants_w[name] *= 1 + float(value.strip("+%")) / 100
        else:
            fields = {
                "weight": lambda text: {"weight": float(text)},
                "deadline": lambda text: {"deadline_s": parse_time(text)},
                "halls": lambda text: {"halls": tuple(text.split())},
            }[what](value)
            jobs = tuple(msgspec.structs.replace(j, **fields) if j.job_id == name else j for j in jobs)
    return replace(site, limits_w=limits_w, plants_w=plants_w), jobs
