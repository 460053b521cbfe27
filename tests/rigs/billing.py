"""A site with two halls and a store that a test fills by hand: roll-ups of five minutes and intervals of jobs."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from powerhall.site.planning import Planning
from powerhall.site.site_file import read_site
from powerhall.site.topology import Site
from powerhall.store import Store, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.billing.allocation import Amounts
from powerhall_optimizer.billing.bill import Bill, make_bill

NOON = 1_793_534_400  # 2026-11-01T12:00Z
HOUR = 3600
KWH = 3.6e6


SITE = """
[site]
name = "lab"
timezone = "Europe/Berlin"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "1.8 kW"
max_power = "10.2 kW"
modes = [
  {name = "p700", gpu_power = "970 W", speed = 1.0, gpu_power_limit = "700 W"},
  {name = "p400", gpu_power = "601 W", speed = 0.8, gpu_power_limit = "400 W"},
]

[[halls]]
name = "a"
rows = [{name = "r", racks = [{name = "k", node_type = "h100", nodes = "n[1-2]"}]}]

[[halls]]
name = "b"
rows = [{name = "r", racks = [{name = "k", node_type = "h100", nodes = "n3"}]}]

[planning]
prices = "prices.csv"
carbon = "carbon.csv"
"""
PRICES = "time,usd_per_mwh\n2026-01-01T00:00Z,50\n2027-12-31T00:00Z,50\n"
CARBON = "time,g_per_kwh\n2026-01-01T00:00Z,400\n2027-12-31T00:00Z,400\n"
HALL_OF = {"n1": "a", "n2": "a", "n3": "b"}


@dataclass(slots=True)
class BillRig:
    """The site and its store, as the commands find them."""

    folder: Path
    site: Site
    planning: Planning
    store: Store

    @classmethod
    def made(cls, folder: Path, *, more: str = "", prices: str = PRICES, carbon: str = CARBON) -> "BillRig":
        """Write the files of a site, with `more` at the end of site.toml, and open its store."""
        (folder / "prices.csv").write_text(prices)
        (folder / "carbon.csv").write_text(carbon)
        (folder / "site.toml").write_text(SITE + more)
        site, planning = read_site(folder / "site.toml")
        return cls(folder, site, planning, open_store(f"sqlite:///{folder}/power.db"))

    def meter(self, hall: str, start_s: int, end_s: int, **values: float) -> None:
        """Write the roll-up of a hall in every five minutes of a span."""
        tags = {"site": "lab", "hall": hall}
        points = [Point("hall_5m", tags, values, at_s * 1000) for at_s in range(start_s, end_s, 300)]
        self.store.write(b"".join(map(encode, points)))

    def interval(self, job: str, node: str, gpu: int, span: tuple[float, float], energy_j: float, **more: str) -> None:
        """Write a job's interval on a GPU; an end of 0 is an open one."""
        tags = {"site": "lab", "hall": HALL_OF[node], "rack": f"{HALL_OF[node]}/r/k", "node": node, "gpu": str(gpu)}
        fields: Mapping[str, float | str] = {"start_s": span[0], "end_s": span[1], "energy_j": energy_j}
        names = {"job": job, "energy_split": "whole", **more}
        time_ms = int(span[0] * 1000) + sum(map(ord, job)) % 100
        self.store.write(encode(Point("job_interval", tags, {**names, **fields}, time_ms)))

    def bill(self, start_s: float, end_s: float, now_s: float = 4e9) -> Bill:
        """Return the bill of a span."""
        return make_bill(self.store, self.site, self.planning, (start_s, end_s), now_s)


def whole(bill: Bill) -> Amounts:
    return bill.jobs + bill.rest("idle") + bill.rest("unallocated") + bill.rest("assumed")


def assert_adds_up(bill: Bill) -> None:
    total, meter = whole(bill), bill.rest("meter")
    for name in ("it_j", "energy_j", "cost_usd", "co2_g", "water_l"):
        assert getattr(total, name) == pytest.approx(getattr(meter, name), rel=1e-9, abs=1e-6), name


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))
