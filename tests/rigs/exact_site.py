"""Small random sites with true curves, and their exact optimum by a model that shares nothing with the optimizer.

The model has one Boolean per job, hall, node type, mode and start. It knows no curve: CP-SAT finds the best set of
decisions, the physics of powerhall core says whether each slot holds its limits, and where one does not, a smallest set
of decisions that is too much there is forbidden (power and heat only grow with what runs). That repeats until nothing
is broken: then the set is optimal. Nodes are counted (a job larger than one takes whole ones), not placed, so that a
plan is worth no more than this optimum.
"""

import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from ortools.sat.python import cp_model

from powerhall.jobs import Job
from powerhall.physics.cooling import hall_load, media, medium_load
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.plan.period_budget import PeriodBudget
from powerhall.plan.plan import Snapshot, gpu_power_w, gpu_speed
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Feed, Hall, Losses, Mode, NodeType, Rack, RackRow, Site

__all__ = ["exact_optimum", "small_site"]

START_S = 1_700_000_100
replace = msgspec.structs.replace


def small_site(draw: random.Random) -> Snapshot:
    """Return a site of one to three halls in which fans, chillers and losses are strong and several limits bind."""
    kinds = {"n0": _node_type(draw, "n0"), "n1": _node_type(draw, "n1")}
    halls = tuple(_hall(draw, f"h{number}", kinds) for number in range(draw.randint(1, 3)))
    slots = draw.randint(2, 4)
    bare = Site("phx", halls, kinds)
    idle_w = {hall.zone: sum(len(r.nodes) * kinds[r.node_type].idle_power_w for r in hall.racks()) for hall in halls}
    most_w = {hall.zone: sum(len(r.nodes) * kinds[r.node_type].max_power_w for r in hall.racks()) for hall in halls}
    feeds: tuple[Feed, ...] = ()
    if draw.random() < 0.3:
        zone = halls[0].zone
        feeds = (Feed("feed", (zone,), draw.uniform(1.02 * idle_w[zone], most_w[zone])),)
    warm = [draw.choice([draw.uniform(10, 24), draw.uniform(28, 36)]) for _ in range(slots)]
    s = Snapshot(
        taken_s=START_S,
        start_s=START_S,
        slot_s=300,
        slots=slots,
        site=replace(bare, feeds=feeds),
        jobs=tuple(_job(draw, number, slots) for number in range(draw.randint(3, 7))),
        dry_bulb_c=tuple(warm),
        wet_bulb_c=tuple(c - draw.uniform(1, 9) for c in warm),
        price_per_mwh=tuple(draw.uniform(-20, 300) for _ in range(slots)) if draw.random() < 0.4 else (),
    )
    idle = max(sum(_loads(s, slot, ())[0].values()) for slot in range(slots))
    limit_w = idle + draw.uniform(0.02, 0.8) * (sum(most_w.values()) - sum(idle_w.values())) + 50.0
    margin = {"phx": draw.uniform(0, 40)} if draw.random() < 0.3 else {}
    nodes = [node for rack in bare.racks() for node in rack.nodes]
    stale = (draw.choice(nodes),) if draw.random() < 0.15 else ()
    return replace(s, site=replace(s.site, power_limit_w=limit_w), margin_w=margin, stale_nodes=stale)


def _node_type(draw: random.Random, name: str) -> NodeType:
    idle_w = draw.choice([400.0, 1000.0, 2600.0])
    most_w = idle_w + draw.choice([2000.0, 5000.0, 9000.0])
    full = Mode("full", "power_limit", most_w / 8, 1.0)
    low = Mode("low", "power_limit", (idle_w + 0.6 * (most_w - idle_w)) / 8, 0.8)
    share = draw.choice([0.0, 0.5, 0.8, 1.0])
    return NodeType(name, "X", 8, idle_w, most_w, (idle_w + most_w) / 2, share, (full, low))


def _hall(draw: random.Random, zone: str, kinds: dict[str, NodeType]) -> Hall:
    names = draw.sample(sorted(kinds), draw.randint(1, 2))
    racks = []
    for number, name in enumerate(names):
        nodes = tuple(f"{zone}-{name}-{i}" for i in range(draw.randint(1, 4)))
        racks.append(Rack(f"{zone}/r/k{number}", name, nodes))
    idle_w = sum(len(r.nodes) * kinds[r.node_type].idle_power_w for r in racks)
    most_w = sum(len(r.nodes) * kinds[r.node_type].max_power_w for r in racks)
    losses = Losses(draw.uniform(0, 300), draw.uniform(0, 0.08), draw.choice([0.0, 1e-6, 4e-6]))
    top_w = most_w + losses.power_w(most_w)
    base_w = idle_w + losses.power_w(idle_w)

    def plant(name: str, serves: str, kind: str) -> Plant:
        capacity_w = base_w * 1.5 + draw.uniform(0.2, 1.3) * (top_w - base_w)
        made = Plant(
            name, kind, capacity_w, serves, 40.0 if kind == "dry_cooler" else 18.0, cop=draw.uniform(2.5, 6),
            fan_power_w=draw.uniform(0, 0.2) * capacity_w, pump_power_w=draw.uniform(0, 500),
        )  # fmt: skip
        staged = random.Random(made.capacity_w)  # of its own, so that the rest of a site does not depend on it
        if staged.random() < 0.7:
            return made
        return msgspec.structs.replace(made, units=staged.randint(1, 4), min_part_load=staged.choice([0.0, 0.3]))

    cooled = draw.random()
    plants: tuple[Plant, ...] = ()
    if cooled < 0.45:
        plants = tuple(
            plant(f"p{i}", "all", draw.choice(["fixed", "tower_chiller"])) for i in range(draw.randint(1, 2))
        )
    elif cooled < 0.9:
        plants = (plant("dry", "liquid", draw.choice(["dry_cooler", "fixed"])), plant("ch", "air", "tower_chiller"))
    limit_w = draw.uniform(1.05 * idle_w, most_w) if draw.random() < 0.3 else None
    row_w = draw.uniform(1.05 * idle_w, most_w) if draw.random() < 0.2 else None
    return Hall(zone, (RackRow(f"{zone}/r", tuple(racks), row_w),), plants, losses, limit_w)


def _job(draw: random.Random, number: int, slots: int) -> Job:
    gpus = draw.choice([1, 2, 4, 8, 8, 12, 16])
    return Job(
        f"j{number}",
        gpus,
        300.0 * draw.uniform(0.6, slots + 1),
        submit_s=START_S - 10.0,
        weight=draw.choice([1.0, 1.0, draw.uniform(0.2, 4)]),
    )


@dataclass(frozen=True)
class _Decision:
    job: int
    hall: str
    kind: str
    start: int
    stop: int
    gpus: int
    added_w: float
    value: int
    power_w: float = 0.0
    length: int = 0


def _unit_usd(s: Snapshot) -> float:
    total = sum(j.weight * j.gpus * j.duration_s / 3600 * s.objective.usd_per_gpu_h for j in s.jobs) * 1010
    return float(10.0 ** max(-6, math.ceil(math.log10(max(total, 1e-9) / 2.0**50))))


def _meter_slope(s: Snapshot, hall: Hall, share: float) -> float:
    """W at the meter per W of IT, for the cost of energy: by the formula of the docs."""
    kinds = s.site.node_types
    closed = {*s.down_nodes, *s.stale_nodes}
    idle_w = sum(_idle_w(s, rack) for rack in hall.racks())
    jobs_w = 0.0
    for rack in hall.racks():
        kind = kinds[rack.node_type]
        high_w = max(mode.gpu_power_w for mode in kind.modes) - kind.idle_gpu_power_w
        jobs_w += high_w * kind.gpus * sum(node not in closed for node in rack.nodes)
    loss = hall.losses.linear + hall.losses.quadratic_per_w * (2 * idle_w + jobs_w)
    mean = {}
    for medium in media(hall):
        parts = []
        for slot in range(s.slots):
            capacity_w, none_w = medium_load(hall, medium, 0.0, _air(s, slot))
            full_w = medium_load(hall, medium, capacity_w, _air(s, slot))[1]
            parts.append((full_w - none_w) / capacity_w if capacity_w > 0 else 0.0)
        mean[medium] = sum(parts) / len(parts)
    if "all" in mean:
        return (1 + loss) * (1 + mean["all"])
    return 1 + loss + share * mean.get("liquid", 0.0) + (1 - share + loss) * mean.get("air", 0.0)


def _decisions(s: Snapshot) -> list[_Decision]:
    """Every way to run each job, with its value by the formula of the docs."""
    unit = _unit_usd(s)
    per_w = [p / 1e6 * s.slot_s / 3600 / unit for p in s.price_per_mwh] or [0.0] * s.slots
    unit_w = 1.0
    if any(per_w):
        unit_w = float(10.0 ** max(0, math.ceil(math.log10(50 / max(1e-12, *map(abs, per_w))))))
    tariff = [round(p * unit_w) for p in per_w]
    closed = {*s.down_nodes, *s.stale_nodes}
    found = []
    for number, job in enumerate(s.jobs):
        worth = max(1, round(job.weight * job.gpus * job.duration_s / 3600 * s.objective.usd_per_gpu_h / unit))
        within = worth * min(1.0, s.slots * s.slot_s / job.duration_s)
        delay = round(within * s.objective.delay_share / s.slots)
        for hall in s.site.halls:
            for name in dict.fromkeys(rack.node_type for rack in hall.racks()):
                kind = s.site.node_types[name]
                nodes = [n for rack in hall.racks() if rack.node_type == name for n in rack.nodes if n not in closed]
                whole = job.gpus if job.gpus <= kind.gpus else -(-job.gpus // kind.gpus) * kind.gpus
                if whole > len(nodes) * kind.gpus:
                    continue
                slope = _meter_slope(s, hall, kind.liquid_fraction)
                for mode in kind.modes:
                    speed = gpu_speed(mode, None)
                    added_w = max(0.0, gpu_power_w(kind, mode, None) - kind.idle_gpu_power_w)
                    length = max(1, math.ceil(job.duration_s / speed / s.slot_s - 1e-9))
                    least = max(1, math.ceil(job.duration_s / s.slot_s - 1e-9))
                    free = length if least >= s.slots else least + max(0, length - s.slots)
                    rate = max(1, round(worth * (1 - s.objective.slow_share * (1 / speed - 1)) / length))
                    energy = round(added_w * slope * job.gpus / unit_w)
                    for start in range(s.slots):
                        stop = min(s.slots, start + length)
                        value = free * delay + rate * (stop - start) - delay * (start + length)
                        value -= energy * sum(tariff[start:stop])
                        one = _Decision(
                            number, hall.zone, name, start, stop, whole, added_w * job.gpus, value,
                            gpu_power_w(kind, mode, None) * job.gpus, length,
                        )  # fmt: skip
                        found.append(one)
    return found


def _air(s: Snapshot, slot: int) -> Weather:
    return Weather(s.dry_bulb_c[slot], s.wet_bulb_c[slot])


def _idle_w(s: Snapshot, rack: Rack) -> float:
    kind = s.site.node_types[rack.node_type]
    return sum(kind.max_power_w if node in s.stale_nodes else kind.idle_power_w for node in rack.nodes)


def _loads(
    s: Snapshot, slot: int, runs: Iterable[_Decision]
) -> tuple[dict[str, float], dict[str, float], dict[tuple[str, str], tuple[float, float]]]:
    """Return power at the meter and IT power per hall, and heat and capacity per hall and medium, in one slot."""
    meter, it, heat = {}, {}, {}
    runs = list(runs)
    for hall in s.site.halls:
        liquid_w = air_w = 0.0
        loads = [(rack.node_type, _idle_w(s, rack)) for rack in hall.racks()]
        loads += [(run.kind, run.added_w) for run in runs if run.hall == hall.zone]
        for name, watts in loads:
            share = s.site.node_types[name].liquid_fraction
            liquid_w += share * watts
            air_w += (1 - share) * watts
        load = hall_load(hall, liquid_w, air_w, _air(s, slot))
        meter[hall.zone], it[hall.zone] = load.facility_power_w, load.it_power_w
        heat |= {(hall.zone, m): (load.heat_w[m], load.capacity_w[m]) for m in load.heat_w}
    return meter, it, heat


def _holds(s: Snapshot, slot: int, runs: Iterable[_Decision]) -> bool:
    """Whether every limit holds in a slot, to the half W that the checker allows; idle halls may exceed theirs."""
    return all(load_w <= max(limit_w, idle_w) + 0.499 for _, load_w, idle_w, limit_w in _limits(s, slot, list(runs)))


def exact_optimum(s: Snapshot, seconds: float = 8.0) -> int | None:
    """Return the highest value of any plan of the snapshot, nodes counted; None where it takes longer."""
    end_s = time.monotonic() + seconds
    decisions = _decisions(s)
    closed = {*s.down_nodes, *s.stale_nodes}
    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in decisions]
    for number in range(len(s.jobs)):
        model.add_at_most_one(x for d, x in zip(decisions, chosen, strict=True) if d.job == number)
    for hall in s.site.halls:
        for name in dict.fromkeys(rack.node_type for rack in hall.racks()):
            nodes = [n for rack in hall.racks() if rack.node_type == name for n in rack.nodes if n not in closed]
            for slot in range(s.slots):
                own = [
                    d.gpus * x
                    for d, x in zip(decisions, chosen, strict=True)
                    if (d.hall, d.kind) == (hall.zone, name) and d.start <= slot < d.stop
                ]
                model.add(sum(own) <= len(nodes) * s.site.node_types[name].gpus)
    _no_less_than_alone(s, decisions, model, chosen)
    for budget in s.period_budgets:
        own = [(n, d) for n, d in enumerate(decisions) if s.jobs[d.job].tenant == budget.tenant]
        model.add(
            sum(math.floor(used(s, budget, d) * 1000) * chosen[n] for n, d in own) <= math.ceil(budget.left * 1000)
        )
    model.maximize(sum(d.value * x for d, x in zip(decisions, chosen, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    while (left_s := end_s - time.monotonic()) > 0:
        solver.parameters.max_time_in_seconds = left_s
        if solver.solve(model) != cp_model.OPTIMAL:
            return None
        runs = [n for n, x in enumerate(chosen) if solver.boolean_value(x)]
        broken = False
        for slot in range(s.slots):
            here = [n for n in runs if decisions[n].start <= slot < decisions[n].stop]
            if not _holds(s, slot, (decisions[n] for n in here)):
                _forbid(s, slot, here, decisions, model, chosen)
                broken = True
        if not broken:
            return round(solver.objective_value)
    return None


def used(s: Snapshot, budget: PeriodBudget, run: _Decision) -> float:
    """Return what a run uses of a budget, second by second of its slots, by the words of the docs."""
    total, most = 0.0, 0.0
    for slot in range(max(s.slots, run.start + run.length)):
        rate = budget.site_per_it
        if budget.kind == "cost":
            rate *= max(0.0, s.price_per_mwh[slot] if slot < len(s.price_per_mwh) else 0.0) / 3.6e9
        if budget.kind == "co2":
            rate *= (s.carbon_g_per_kwh[slot] if slot < len(s.carbon_g_per_kwh) else 0.0) / 3.6e6
        most = max(most, rate)
        rate = most if slot >= s.slots else rate
        begin = max(budget.start_s, s.start_s + slot * s.slot_s)
        end = min(budget.end_s, s.start_s + (slot + 1) * s.slot_s)
        if run.start <= slot < run.start + run.length:
            total += rate * run.power_w * max(0, end - begin)
    return total


def _no_less_than_alone(s, decisions, model, chosen) -> None:
    """Curves are convex: decisions together add at least what each adds alone, in power, IT power and heat."""
    for slot in range(s.slots):
        here = [n for n, d in enumerate(decisions) if d.start <= slot < d.stop]
        idle = _numbers(s, slot, ())
        limits = dict.fromkeys(idle, math.inf)
        for name, load_w, idle_w, limit_w in _limits(s, slot, ()):
            assert load_w == idle_w
            limits[name] = limit_w
        alone = {n: _numbers(s, slot, (decisions[n],)) for n in here}
        for name, limit_w in limits.items():
            if limit_w < math.inf:
                terms = [math.floor(1000 * (alone[n][name] - idle[name]) - 1) * chosen[n] for n in here]
                model.add(sum(terms) <= math.ceil(1000 * (max(limit_w, idle[name]) + 0.5 - idle[name])))


def _numbers(s: Snapshot, slot: int, runs: Iterable[_Decision]) -> dict[object, float]:
    return {name: load_w for name, load_w, _, _ in _limits(s, slot, runs)}


def _limits(s: Snapshot, slot: int, runs: Iterable[_Decision]) -> list[tuple[object, float, float, float]]:
    """Return (name, load, load when idle, limit) of everything that is limited in a slot, in W."""
    meter, it, heat = _loads(s, slot, runs)
    meter0, it0, heat0 = _loads(s, slot, ())
    pairs: list[tuple[object, float, float, float | None]] = [
        (s.site.name, sum(meter.values()), sum(meter0.values()), s.site.power_limit_w)
    ]
    for hall in s.site.halls:
        pairs.append((hall.zone, it[hall.zone], it0[hall.zone], hall.power_limit_w))
        pairs += [(row.zone, it[hall.zone], it0[hall.zone], row.power_limit_w) for row in hall.rows]
    for feed in s.site.feeds:
        under = {r.zone.split("/")[0] for r in SiteIndex.of(s.site).racks_under(feed.zone)}
        pairs.append((feed.zone, sum(it[h] for h in under), sum(it0[h] for h in under), feed.power_limit_w))
    found = [
        (name, load_w, idle_w, limit_w - s.margin_w.get(str(name), 0.0))
        for name, load_w, idle_w, limit_w in pairs
        if limit_w is not None
    ]
    return found + [(key, h, heat0[key][0], c) for key, (h, c) in heat.items()]


def _forbid(s, slot, here, decisions, model, chosen) -> None:
    """Forbid a smallest part of a set that is too much in a slot, and as much of the same load in that slot."""
    least = list(here)
    for number in here:
        fewer = [n for n in least if n != number]
        if not _holds(s, slot, (decisions[n] for n in fewer)):
            least = fewer
    own = {decisions[one].job for one in least}
    for other in range(s.slots):
        if other == slot or (not _holds(s, other, (decisions[n] for n in least))):
            places = {(decisions[one].hall, decisions[one].kind) for one in least}
            most_w = max(decisions[one].added_w for one in least)
            alike = [
                [
                    chosen[n]
                    for n, d in enumerate(decisions)
                    if (d.hall, d.kind) == (decisions[one].hall, decisions[one].kind)
                    and (
                        (d.job == decisions[one].job and d.added_w >= decisions[one].added_w)
                        or (len(places) == 1 and one == least[0] and d.added_w >= most_w and d.job not in own)
                    )
                    and d.start <= other < d.stop
                ]
                for one in least
            ]
            model.add(sum(x for group in alike for x in group) <= len(least) - 1)
