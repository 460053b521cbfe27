"""Random bills against a judge that sums the same energy in steps of ten seconds, by plain Python."""

import random
from collections import defaultdict
from pathlib import Path

import pytest

from powerhall_optimizer.billing.bill import LEVELS
from rigs.billing import HALL_OF, NOON, BillRig, assert_adds_up

STEP_S = 10


def judged(rig: "Case", start_s: int, end_s: int) -> dict[str, float]:
    """Return energy at the meter by job, and of idle and the rest, from sums over steps of ten seconds."""
    found: dict[str, float] = defaultdict(float)
    for hall, meter in rig.meters.items():
        for bucket in range(start_s // 300 * 300, end_s, 300):
            if bucket not in meter:
                continue
            steps = [t for t in range(bucket, bucket + 300, STEP_S) if start_s <= t < end_s]
            it_w, facility_w = meter[bucket]
            jobs: dict[str, float] = defaultdict(float)
            idle_j = 0.0
            for node in (n for n, at in HALL_OF.items() if at == hall):
                for gpu in range(8):
                    for t in steps:
                        here = [one for one in rig.held if one[1:3] == (node, gpu) and one[3] <= t < one[4]]
                        board_w = sum(one[5] for one in here)
                        if not here:
                            idle_j += 225.0 * STEP_S
                            continue
                        with_node_w = max(225.0, in_node(board_w))
                        for one in here:
                            jobs[one[0]] += with_node_w * (one[5] / board_w) * STEP_S
            it_j = it_w * STEP_S * len(steps)
            scale = min(1.0, it_j / sum(jobs.values())) if jobs else 1.0
            billed = {job: joules * scale for job, joules in jobs.items()}
            idle_j = min(idle_j, it_j - sum(billed.values()))
            for job, joules in billed.items():
                found[job] += joules * facility_w / it_w
            found["(idle)"] += idle_j * facility_w / it_w
            found["(rest)"] += (it_j - idle_j - sum(billed.values())) * facility_w / it_w
    return found


def in_node(board_w: float) -> float:
    if board_w <= 400.0:
        return board_w * 601.0 / 400.0
    return 601.0 + (board_w - 400.0) * (970.0 - 601.0) / 300.0 if board_w <= 700.0 else board_w * 970.0 / 700.0


class Case:
    """A random hour and a half: jobs on GPUs of three nodes, some shared, meters with gaps."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.held: list[tuple[str, str, int, int, int, float]] = []
        for _ in range(draw.randint(0, 14)):
            begin = NOON + draw.randrange(-60, 500) * STEP_S
            one = (f"j{draw.randrange(5)}", draw.choice(list(HALL_OF)), draw.randrange(3))
            overlaps = [o for o in self.held if o[:3] == one]
            if not overlaps:
                self.held.append((*one, begin, begin + draw.randint(1, 300) * STEP_S, draw.uniform(20.0, 700.0)))
        self.meters: dict[str, dict[int, tuple[float, float]]] = {}
        for hall in ("a", "b"):
            rows = {}
            for bucket in range(NOON - 600, NOON + 6600, 300):
                if draw.random() < 0.9:
                    it_w = draw.uniform(500.0, 9000.0)
                    rows[bucket] = it_w, it_w * draw.uniform(1.0, 1.6)
            self.meters[hall] = rows

    def write(self, rig: BillRig) -> None:
        for hall, rows in self.meters.items():
            for bucket, (it_w, facility_w) in rows.items():
                rig.meter(hall, bucket, bucket + 300, it_power_w=it_w, facility_power_w=facility_w)
        for job, node, gpu, begin, end, power_w in self.held:
            rig.interval(job, node, gpu, (begin, end), power_w * (end - begin))


@pytest.mark.parametrize("seed", range(8))
def test_random_bills_are_those_of_the_judge(tmp_path: Path, seed: int) -> None:
    rig, case = BillRig.made(tmp_path), Case(seed)
    case.write(rig)
    draw = random.Random(seed)
    start_s, end_s = NOON + STEP_S * draw.randrange(50), NOON + 5400 - STEP_S * draw.randrange(50)
    bill, judge = rig.bill(start_s, end_s), judged(case, start_s, end_s)
    for job, amounts in bill.grouped("job").items():
        assert amounts.energy_j == pytest.approx(judge[job], rel=1e-6, abs=1.0), job
    assert bill.rest("idle").energy_j == pytest.approx(judge["(idle)"], rel=1e-6, abs=1.0)
    assert bill.rest("unallocated").energy_j == pytest.approx(judge["(rest)"], rel=1e-6, abs=1.0)
    assert set(bill.grouped("job")) >= {job for job, joules in judge.items() if joules > 0} - {"(idle)", "(rest)"}
    for level in LEVELS:
        assert sum((a.energy_j for a in bill.grouped(level).values()), 0.0) == pytest.approx(bill.jobs.energy_j)
    assert_adds_up(bill)


# Owners.
