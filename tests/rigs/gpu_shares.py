"""Sites whose GPUs jobs share, and a judge of their plans of its own: GPU by GPU, slot by slot, from plain JSON.

Sites here have one meter limit and neither losses nor plants, so that the power at the meter is a plain sum: idle
nodes, what is held, and every GPU on which at least one job runs, whole, at the highest draw of the jobs on it.
"""

import itertools
import random
from collections.abc import Iterator
from fractions import Fraction

from powerhall.jobs.model import Job
from powerhall.plan.plan import Objective, Snapshot
from powerhall.site.topology import Hall, JobClass, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series
from rigs.independent_physics import names

START_S, SLOT_S = 1_700_000_100, 300
MODES = (Mode("fast", "power_limit", 1_250.0, 1.0), Mode("eco", "power_limit", 900.0, 0.8))


def site(
    nodes: int, gpus: int, parts: int, watts: float, *, mig: bool = False, whole: int = 0, fill: bool = True
) -> Site:
    """Return a site of one rack of nodes with shared GPUs, and one of `whole` nodes with none."""
    kinds = {
        "cut": NodeType("cut", "h200", gpus, 500.0 * gpus, 1_500.0 * gpus, 600.0 * gpus, 0.0, MODES, parts, mig, fill)
    }
    racks = [Rack("h/r/k1", "cut", tuple(f"c{n}" for n in range(nodes)))]
    if whole:
        kinds["full"] = NodeType("full", "h200", gpus, 500.0 * gpus, 1_500.0 * gpus, 600.0 * gpus, 0.0, MODES)
        racks.append(Rack("h/r/k2", "full", tuple(f"w{n}" for n in range(whole))))
    hall = Hall("h", (RackRow("h/r", tuple(racks)),), (), Losses())
    return Site(
        "s", (hall,), kinds, job_classes={"hot": JobClass("hot", {"fast": 1.2}, {"eco": 0.7})}, power_limit_w=watts
    )


def waiting(draw: random.Random, number: int, slots: int, shares: list[str]) -> Job:
    """Return a job that waits for a part of a GPU."""
    earliest = START_S + SLOT_S * draw.randint(0, 3) if draw.random() < 0.2 else None
    deadline = START_S + SLOT_S * draw.randint(2, slots) if draw.random() < 0.15 else None
    return Job(
        f"p{number}", 1, SLOT_S * draw.uniform(0.3, slots * 0.7), weight=draw.choice([1.0, 1.0, 2.0, 7.5]),
        job_class=draw.choice(["default", "default", "hot"]), earliest_s=earliest, deadline_s=deadline,
        preemptible=draw.random() < 0.4, gpu_share=draw.choice(shares),
        allowed_nodes="c[0-1]" if draw.random() < 0.1 else None,
    )  # fmt: skip


def running(draw: random.Random, gpus: int, nodes: int, shares: list[str], slots: int, *, known: bool) -> Iterator[Job]:
    """Yield jobs that run: of the GPUs of each node some whole, some shared by jobs of one class and mode.

    `known`: most of them say on which GPU they are.
    """
    for node in range(nodes):
        for gpu in range(gpus):
            name, chance = f"r{node}-{gpu}", draw.random()
            some = {"state": "running", "hall": "h", "node_type": "cut", "nodes": f"c{node}", "start_s": START_S - 60.0}
            if chance < 0.15:
                yield Job(name, 1, SLOT_S * draw.uniform(0.5, slots), mode="fast", preemptible=chance < 0.05, **some)
            elif chance < 0.5:
                mode, klass, left = draw.choice(["fast", "eco"]), draw.choice(["default", "hot"]), Fraction(1)
                for number in range(draw.randint(1, 4)):
                    share = draw.choice(shares)
                    if (left := left - Fraction(share)) < 0:
                        break
                    yield Job(
                        f"{name}.{number}", 1, SLOT_S * draw.uniform(0.3, slots), job_class=klass, mode=mode,
                        weight=draw.uniform(0.5, 4), preemptible=draw.random() < 0.5, gpu_share=share,
                        gpu_number=None if draw.random() < 0.15 or not known else gpu, **some,
                    )  # fmt: skip


def random_snapshot(draw: random.Random, slots: int = 10) -> Snapshot:
    """Return a small site with a queue of parts and whole GPUs; its limit falls in some."""
    parts, gpus, nodes = draw.choice([2, 4, 7]), draw.choice([1, 2, 4]), draw.randint(2, 3)
    mig, fill = draw.random() < 0.25, draw.random() < 0.6
    shares = [f"1/{parts}"] if mig else [f"{n}/{parts}" for n in range(1, parts)] + ["0.1"]
    whole = draw.randint(0, 1) or int(mig)
    idle_w = 500.0 * gpus * (nodes + whole)
    place = site(nodes, gpus, parts, idle_w + 1_000.0 * draw.randint(1, gpus * nodes), mig=mig, whole=whole, fill=fill)
    if draw.random() < 0.3:
        at, low_w = START_S + SLOT_S * draw.randint(1, slots - 1), idle_w + 800.0 * draw.randint(0, 2)
        series = Series((float(START_S), float(at)), (place.power_limit_w or 0.0, low_w))
        place = Site(**{f: getattr(place, f) for f in place.__struct_fields__} | {"budgets": {"s": series}})
    jobs = [waiting(draw, n, slots, shares) for n in range(draw.randint(6, 16))]
    jobs += [Job(f"w{n}", draw.randint(1, gpus), SLOT_S * draw.uniform(1, slots)) for n in range(2)]
    if not mig or draw.random() < 0.5:
        jobs += [job for job in running(draw, gpus, nodes, shares, slots, known=fill) if not mig or job.gpu_share]
    down = ("c0",) if draw.random() < 0.2 else ()
    return Snapshot(START_S, START_S, SLOT_S, slots, place, tuple(jobs), down_nodes=down)


def limit_w(plan: dict, slot: int) -> float:
    """Return the limit at the meter in a slot."""
    place = plan["snapshot"]["site"]
    watts = place["power_limit_w"]
    series = place.get("budgets", {}).get("s")
    for at, value in zip(series["times_s"], series["values"], strict=True) if series else ():
        if at <= plan["snapshot"]["start_s"] + slot * SLOT_S:
            watts = min(place["power_limit_w"], value)
    return watts


def gpu_idle_w(kind: dict) -> float:
    return kind["idle_power_w"] / kind["gpus"]


def share_of(job: dict) -> Fraction:
    return Fraction(job["gpu_share"]) if job.get("gpu_share") else Fraction(1)


def faults(plan: dict) -> list[str]:
    """Return what is wrong with the GPUs and the power of a plan, as decoded JSON."""
    s = plan["snapshot"]
    jobs = {job["job_id"]: job for job in s["jobs"]}
    kind_of = {n: s["site"]["node_types"][r["node_type"]] for h in s["site"]["halls"] for row in h["rows"]
               for r in row["racks"] for n in r["nodes"]}  # fmt: skip
    silent = set(s.get("stale_nodes", ()))
    fixed_w = sum(kind["max_power_w" if node in silent else "idle_power_w"] for node, kind in kind_of.items())
    held = [(node, h["gpus"], h["gpu_power_w"]) for h in s.get("held", ()) for node in names(h["nodes"])]
    fixed_w += sum(n * (w - gpu_idle_w(kind_of[node])) for node, n, w in held if node not in silent)
    found: list[str] = []
    for slot in range(s["slots"]):
        at = s["start_s"] + slot * SLOT_S
        gpus: dict[tuple[str, str], list[dict]] = {}
        used: dict[str, int] = {}
        for node, count, _ in held:
            used[node] = used.get(node, 0) + count
        watts = fixed_w
        for entry in plan["assignments"]:
            if not entry["start_s"] <= at < entry["end_s"]:
                continue
            job, node = jobs[entry["job_id"]], entry["placements"][0]["nodes"]
            kind = kind_of[node]
            if job.get("gpu_share"):
                root = entry.get("beside") or entry["job_id"]
                gpus.setdefault((node, root), []).append(entry)
                continue
            used[node] = used.get(node, 0) + job["gpus"]
            watts += 0 if node in silent else job["gpus"] * (entry["gpu_power_w"] - gpu_idle_w(kind))
            if kind.get("mig") and job.get("state") != "running":
                found.append(f"{job['job_id']}: a whole GPU of a node in MIG instances")
        parts_on: dict[str, list[float]] = {}
        for (node, root), here in gpus.items():
            kind = kind_of[node]
            own = [max(e["gpu_power_w"] for e in here)] if kind.get("gpu_fill") else [e["gpu_power_w"] for e in here]
            parts_on.setdefault(node, []).extend(own)
            parts = sum(-(-share_of(jobs[e["job_id"]]) * kind["gpu_parts"] // 1) for e in here)
            if parts > kind["gpu_parts"]:
                found.append(f"{root}: {parts} parts in slot {slot}")
            if len({e["mode"] for e in here}) > 1:
                found.append(f"{root}: two modes at once")
            numbers = {jobs[e["job_id"]].get("gpu_number") for e in here if jobs[e["job_id"]].get("state") == "running"}
            if len(numbers) > 1:
                found.append(f"{root}: two GPUs")
        for node, draws in parts_on.items():  # each on a GPU of its own, as far as the node has GPUs
            kind = kind_of[node]
            alone = len({root for at, root in gpus if at == node}) if kind.get("gpu_fill") else len(draws)
            busy = min(alone, kind["gpus"] - used.get(node, 0)) if not kind.get("gpu_fill") else alone
            used[node] = used.get(node, 0) + busy
            watts += 0 if node in silent else sum(sorted(draws)[-busy:] if busy else []) - busy * gpu_idle_w(kind)
        for node, count in used.items():
            if count > kind_of[node]["gpus"] and node not in silent:
                found.append(f"{node}: {count} GPUs in slot {slot}")
        if watts > max(fixed_w, limit_w(plan, slot)) + 1.0:
            found.append(f"{watts:.0f} W in slot {slot}, limit {limit_w(plan, slot):.0f}")
    return found


def tiny(draw: random.Random) -> Snapshot:
    """Return one node, so small that every plan of it can be tried; value is work alone."""
    parts, gpus = draw.choice([2, 3, 7]), draw.randint(1, 2)
    place = site(1, gpus, parts, 500.0 * gpus + 750.0 * draw.randint(1, gpus) + 1.0)
    kind = NodeType("cut", "h200", gpus, 500.0 * gpus, 1_500.0 * gpus, 600.0 * gpus, 0.0, MODES[:1], parts, False, True)
    place = Site(place.name, place.halls, {"cut": kind}, power_limit_w=place.power_limit_w)
    jobs = [Job(f"p{n}", 1, SLOT_S * float(draw.randint(1, 3)), weight=draw.uniform(0.5, 3),
                gpu_share=f"{draw.randint(1, parts - 1)}/{parts}") for n in range(draw.randint(3, 5))]  # fmt: skip
    plain = Objective(delay_share=0.0, slow_share=0.0, shift_share=0.0, move_share=0.0)
    return Snapshot(START_S, START_S, SLOT_S, 3, place, tuple(jobs), objective=plain)


def best_usd(s: Snapshot) -> float:
    """Return the highest value in USD of all ways to start these jobs on the GPUs, each when and where it likes."""
    kind = s.site.node_types["cut"]
    free_w = (s.site.power_limit_w or 0.0) - kind.idle_power_w
    most_gpus = min(kind.gpus, int(free_w // (1_250.0 - kind.idle_power_w / kind.gpus)))
    ways = [(None, 0), *itertools.product(range(kind.gpus), range(s.slots))]
    best = 0.0
    for chosen in itertools.product(ways, repeat=len(s.jobs)):
        usd = 0.0
        on = [[Fraction(0)] * kind.gpus for _ in range(s.slots)]
        for job, (gpu, start) in zip(s.jobs, chosen, strict=True):
            if gpu is None:
                continue
            length = round(job.duration_s / SLOT_S)
            for slot in range(start, min(s.slots, start + length)):
                on[slot][gpu] += Fraction(job.gpu_share)
            done = min(length, s.slots - start) / length
            usd += (
                job.weight * float(Fraction(job.gpu_share)) * job.duration_s / 3600 * s.objective.usd_per_gpu_h * done
            )
        fits = all(max(row) <= 1 and sum(x > 0 for x in row) <= most_gpus for row in on)
        best = max(best, usd) if fits else best
    return best
