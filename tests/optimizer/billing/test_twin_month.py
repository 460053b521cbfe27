"""A month of the twin's nodes as judge: GPUs, nodes and meters are the twin's, their sums are made here.

`PROVE=30` (`make prove-bills`) runs a whole month, the short form two days.
"""

import math
import os
import random
from collections import defaultdict
from pathlib import Path

import pytest

from powerhall.jobs import Job
from powerhall_twin.site.placed_runs import FreeGpus, PlacedRun
from powerhall_twin.site.simulated_nodes import SimulatedNodes, advance_nodes, create_nodes
from rigs.billing import HALL_OF, BillRig

START_S = 1_793_487_600  # 2026-11-01T00:00+01:00
TICK_S = 300
DAYS = int(os.environ.get("PROVE", "2"))


class TwinMonth:
    """Jobs come, are stopped and go on elsewhere at random; energies are summed up per hall and job as truth."""

    def __init__(self, rig: BillRig, seed: int) -> None:
        create_nodes(rig.site, rig.folder / "nodes", seed)
        self.rig, self.draw = rig, random.Random(seed)
        self.nodes = SimulatedNodes.open(rig.site, rig.folder / "nodes")
        self.free, self.runs = FreeGpus.of(rig.site), {}
        self.began: dict[tuple[str, str, int], tuple[float, float]] = {}
        self.job_j: dict[str, float] = defaultdict(float)
        self.meter_j = 0.0
        self.usd = 0.0

    def run(self, days: int) -> None:
        for now_s in range(START_S, START_S + days * 86_400, TICK_S):
            self.turn_over(now_s)
            before = {n: [self.nodes.energy_j(n, g) for g in range(8)] for n in HALL_OF}
            self.nodes.apply(self.runs.values(), now_s, dict.fromkeys("ab", 28.0))
            advance_nodes(list(self.nodes.states.values()), TICK_S)
            self.meters(now_s, before)
        for job in list(self.runs):
            self.stop(job, START_S + days * 86_400)

    def turn_over(self, now_s: int) -> None:
        for job in list(self.runs):
            if self.draw.random() < 0.02:
                self.stop(job, now_s)
        job = Job(f"j{self.draw.randrange(40)}", self.draw.choice([1, 2, 4, 8]), 1e6, job_class="research")
        node = self.draw.choice(list(HALL_OF))
        is_free = len(self.free.numbers[node]) >= job.gpus
        if job.job_id in self.runs or not is_free or self.draw.random() < 0.7:
            return
        slices, kind = self.free.take({node: job.gpus}), self.rig.site.node_types["h100"]
        self.runs[job.job_id] = PlacedRun(job, HALL_OF[node], self.draw.choice(kind.modes), slices, now_s)
        for gpu in slices[0].gpus:
            self.began[job.job_id, node, gpu] = now_s, self.nodes.energy_j(node, gpu)

    def stop(self, job: str, now_s: int) -> None:
        slices = self.runs.pop(job).slices
        self.free.give_back(slices)
        for part in slices:
            for gpu in part.gpus:
                start_s, energy_j = self.began.pop((job, part.node, gpu))
                used_j = self.nodes.energy_j(part.node, gpu) - energy_j
                self.rig.interval(job, part.node, gpu, (start_s, now_s), used_j)

    def meters(self, now_s: int, before: dict[str, list[float]]) -> None:
        pue = 1.15 + 0.1 * math.sin(now_s / 13_000)
        it_w: dict[str, float] = defaultdict(float)
        for node, hall in HALL_OF.items():
            model = self.nodes.models[node]
            gpus_w = [(self.nodes.energy_j(node, g) - before[node][g]) / TICK_S for g in range(8)]
            it_w[hall] += model.power_w(sum(gpus_w))
            for run in self.runs.values():
                mine = [g for part in run.slices if part.node == node for g in part.gpus]
                self.job_j[run.job.job_id] += sum(model.share_w(gpus_w[g]) for g in mine) * TICK_S * pue
        for hall, power_w in it_w.items():
            self.rig.meter(hall, now_s, now_s + TICK_S, it_power_w=power_w, facility_power_w=power_w * pue)
            self.meter_j += power_w * pue * TICK_S
            self.usd += power_w * pue * TICK_S / 3.6e9 * (50 if now_s // 3600 % 2 else 90)


def test_a_month_adds_up_to_the_meter_of_the_twin(tmp_path: Path) -> None:
    hours = range(START_S // 3600 * 3600, START_S + 32 * 86_400, 3600)
    prices = "time,price\n" + "".join(f"{at},{50 if at // 3600 % 2 else 90}\n" for at in hours)
    rig = BillRig.made(tmp_path, prices=prices)
    month = TwinMonth(rig, 4)
    month.run(DAYS)
    bill = rig.bill(START_S, START_S + DAYS * 86_400)
    rest = bill.rest("idle") + bill.rest("unallocated")
    assert (bill.jobs + rest).energy_j == pytest.approx(month.meter_j, rel=0.005)
    assert (bill.jobs + rest).cost_usd == pytest.approx(month.usd, rel=0.005)
    assert bill.gaps == ()
    billed = bill.grouped("job")
    assert billed.keys() == month.job_j.keys()
    worst = max(abs(billed[job].energy_j / used_j - 1) for job, used_j in month.job_j.items())
    whole = abs(bill.jobs.energy_j / sum(month.job_j.values()) - 1)
    off = abs((bill.jobs + rest).energy_j / month.meter_j - 1)
    unallocated = bill.rest("unallocated").energy_j / month.meter_j
    told = (
        f"{DAYS} days: to the meter {off:.2e}, unallocated {unallocated:.2%}, jobs {whole:.2%}, worst job {worst:.2%}"
    )
    print(told)
    assert worst < 0.10, told
    assert whole < 0.05, told
    assert unallocated < 0.05, told
