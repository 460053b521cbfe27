"""Changed plans: the checker accepts none that a physics of its own, written for tests, refuses; and has no traceback.

`PROVE` in the environment is the number of changed plans (make prove-verifier: 10,000). Half of them have what follows
from decisions (id, zones, plants, value, bound) made to fit again, so that nothing but the change itself can be found.
"""

import copy
import json
import os
import random
from collections import Counter

import msgspec
import pytest

from powerhall.hostlist import compress
from powerhall.jobs import Job
from powerhall.plan.multi_site import read_plans
from powerhall.plan.plan import Plan, Snapshot, StoragePlan, snapshot_hash
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.site.storage import trajectory
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.assemble import with_loads
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.value import value_and_bound
from rigs.independent_physics import faults, names

COUNT = int(os.environ.get("PROVE", "500"))
START_S = 1_700_000_100
SLOTS = 18
replace = msgspec.structs.replace
BATTERY = """
[[batteries]]
name = "bess"
at = "A"
energy = "20 kWh"
charge_power = "15 kW"
discharge_power = "20 kW"
"""


def _jobs(draw: random.Random, site) -> tuple[Job, ...]:
    """Running jobs on some nodes, waiting ones of all sizes, some with deadlines, halls, types and sites."""
    jobs = []
    for rack in site.racks():
        kind = site.node_types[rack.node_type]
        if draw.random() < 0.35:
            nodes = rack.nodes[: draw.randint(1, 2)]
            jobs.append(
                Job(
                    f"r{len(jobs)}", kind.gpus * len(nodes), draw.uniform(900, 9000), START_S - 99.0,
                    weight=draw.uniform(1, 3),
                    preemptible=draw.random() < 0.4, state="running", hall=rack.zone.split("/")[0],
                    node_type=rack.node_type, mode="full", nodes=compress(nodes), start_s=START_S - draw.random() * 900,
                )
            )  # fmt: skip
    for number in range(14):
        length_s = draw.uniform(300, 6000)
        jobs.append(
            Job(
                f"w{number}", draw.choice([1, 2, 4, 8, 12, 16]), length_s, START_S - 9.0,
                weight=draw.choice([1.0, draw.uniform(0.3, 4)]), halls=draw.choice([(), (), ("a",), ("b",)]),
                node_types=draw.choice([(), (), ("h100",)]), sites=draw.choice([(), ("phx",)]),
                earliest_s=draw.choice([None, START_S + 600.0]),
                deadline_s=draw.choice([None, None, START_S + 2.5 * length_s]),
            )
        )  # fmt: skip
    return tuple(jobs)


@pytest.fixture(scope="module")
def plans(site_text, tmp_path_factory) -> list[Plan]:
    """Verified plans: with and without batteries, tight and wide, with nodes that are down or silent, with sheds."""
    found = []
    for seed in range(8):
        draw = random.Random(seed)
        path = tmp_path_factory.mktemp("site") / "site.toml"
        path.write_text(site_text + (BATTERY if seed % 3 == 2 else ""))
        site = read_site(path)[0]
        nodes = [node for rack in site.racks() for node in rack.nodes]
        site = replace(site, budgets={}, power_limit_w=draw.choice([330e3, 210e3, 180e3]))
        jobs = _jobs(draw, site)
        taken = {node for job in jobs if job.nodes for node in names(job.nodes)}
        free = [node for node in nodes if node not in taken]
        snapshot = Snapshot(
            START_S, START_S, 300, SLOTS, site, jobs, down_nodes=(free[0],), stale_nodes=(free[1],),
            price_per_mwh=tuple(draw.uniform(10, 200) for _ in range(SLOTS)) if seed % 2 else (),
            margin_w={"a": 500.0},
        )  # fmt: skip
        settings = RoundSettings(workers=1)
        plan = make_plan(snapshot, settings, 0.5, created_s=START_S, log=Log(quiet=True))
        assert verify_plan(plan) == []
        assert faults(msgspec.to_builtins(plan)) == []
        found.append(plan)
    return found


def _leaves(value, path=()):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _leaves(part, (*path, number))
    else:
        yield path, value


def _set(tree, path, value) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


def _any_leaf(draw: random.Random, tree: dict) -> None:
    """One value of the file, whatever it is, becomes another."""
    leaves = list(_leaves(tree))
    for _ in range(draw.choice([1, 1, 2])):
        path, value = draw.choice(leaves)
        if isinstance(value, bool) or value is None:
            new = draw.choice([True, False, None, 0])
        elif isinstance(value, int | float):
            far = [0, -1, 1e308, -1e308, 1 << 70, 2**63, value * 1e6]
            new = draw.choice([value + 1, value - 1, value * 2, -value, value * 0.5, *far])
        else:
            alike = [other for _, other in leaves if isinstance(other, str)]
            new = draw.choice([draw.choice(alike), "", "x[1-999999999]", value + "x", "\u202e", None, 5])
        _set(tree, path, new)


def _shape(draw: random.Random, tree: dict) -> None:
    """An element of a list goes, comes twice, or changes places."""
    lists = [v for v in (tree["assignments"], tree["waiting"], tree["zones"], tree["storages"], tree["plants"],
                         tree["snapshot"]["jobs"], tree["snapshot"]["site"]["halls"]) if v]  # fmt: skip
    rows = draw.choice(lists)
    at = draw.randrange(len(rows))
    what = draw.choice(["drop", "double", "swap"])
    if what == "drop":
        del rows[at]
    elif what == "double":
        rows.append(copy.deepcopy(rows[at]))
    else:
        other = draw.randrange(len(rows))
        rows[at], rows[other] = rows[other], rows[at]


def _decision(draw: random.Random, tree: dict) -> None:
    """A decision changes as a wrong planner could change it."""
    s = tree["snapshot"]
    entries = tree["assignments"]
    if not entries:
        return
    entry = draw.choice(entries)
    what = draw.choice(["later", "mode", "nodes", "swap", "shed", "drop", "start", "gpus", "hall", "split", "short"])
    if what == "later":
        shift = draw.choice([-2, -1, 1, 2, 5]) * s["slot_s"]
        entry["start_s"] += shift
        entry["end_s"] += shift
    elif what == "mode":
        _other_mode(draw, s, entry)
    elif what == "nodes":
        racks = [r for h in s["site"]["halls"] for row in h["rows"] for r in row["racks"]]
        rack = draw.choice(racks)
        for place in entry["placements"]:
            count = len(names(place["nodes"]))
            place["nodes"] = ",".join(draw.sample(rack["nodes"], min(count, len(rack["nodes"]))))
            place["rack"] = rack["zone"]
        entry["hall"] = rack["zone"].split("/")[0]
    elif what == "swap":
        other = draw.choice(entries)
        entry["placements"], other["placements"] = other["placements"], entry["placements"]
    elif what in ("shed", "drop", "short"):
        code = "shed" if what != "drop" else draw.choice(["preempted", "worth", "power"])
        if what == "short":
            entry["end_s"] = entry["start_s"] + draw.randint(1, 3) * s["slot_s"]
        elif draw.random() < 0.8:
            entries.remove(entry)
        tree["waiting"].append({"job_id": entry["job_id"], "code": code, "reason": ""})
    elif what == "start" and tree["waiting"]:
        waits = draw.choice(tree["waiting"])
        job = next(j for j in s["jobs"] if j["job_id"] == waits["job_id"])
        alike = [e for e in entries if e["gpus"] == job["gpus"]] or [entry]
        new = copy.deepcopy(draw.choice(alike))
        new |= {"job_id": job["job_id"], "running": job["state"] == "running", "gpus": job["gpus"]}
        new["start_s"] = s["start_s"] + draw.randrange(s["slots"]) * s["slot_s"]
        _fit_length(s, new)
        tree["waiting"].remove(waits)
        entries.append(new)
    elif what == "gpus" and entry["placements"]:
        draw.choice(entry["placements"])["gpus_per_node"] += draw.choice([-1, 1, 4])
    elif what == "hall":
        entry["hall"] = draw.choice([h["zone"] for h in s["site"]["halls"]])
    elif what == "split" and entry["placements"]:
        entry["placements"].append(copy.deepcopy(entry["placements"][0]))


def _other_mode(draw: random.Random, s: dict, entry: dict) -> None:
    kind = s["site"]["node_types"][entry["node_type"]]
    mode = draw.choice(kind["modes"])
    entry["mode"] = mode["name"]
    if draw.random() < 0.9:
        entry["gpu_power_w"] = mode["gpu_power_w"]
    if draw.random() < 0.9:
        _fit_length(s, entry)


def _fit_length(s: dict, entry: dict) -> None:
    kind = s["site"]["node_types"][entry["node_type"]]
    mode = next((m for m in kind["modes"] if m["name"] == entry["mode"]), kind["modes"][0])
    job = next(j for j in s["jobs"] if j["job_id"] == entry["job_id"])
    entry["end_s"] = entry["start_s"] + max(1, -int(-job["duration_s"] / mode["speed"] // s["slot_s"])) * s["slot_s"]


def _world(draw: random.Random, tree: dict) -> None:
    """The world is another one than the plan was made for."""
    s = tree["snapshot"]
    what = draw.choice(["limit", "plant", "down", "job", "margin", "store"])
    if what == "limit":
        zones = [s["site"], *s["site"]["feeds"], *s["site"]["halls"]]
        zones += [row for h in s["site"]["halls"] for row in h["rows"]]
        zones += [rack for h in s["site"]["halls"] for row in h["rows"] for rack in row["racks"]]
        zone = draw.choice(zones)
        zone["power_limit_w"] = (zone.get("power_limit_w") or 60e3) * draw.uniform(0.3, 1.1)
    elif what == "plant":
        plants = [plant for h in s["site"]["halls"] for plant in h["plants"]]
        plant = draw.choice(plants)
        plant["capacity_w"] *= draw.uniform(0.3, 1.1)
    elif what == "down":
        nodes = [n for h in s["site"]["halls"] for row in h["rows"] for r in row["racks"] for n in r["nodes"]]
        s[draw.choice(["down_nodes", "stale_nodes"])].append(draw.choice(nodes))
    elif what == "job":
        job = draw.choice(s["jobs"])
        field, value = draw.choice([
            ("gpus", job["gpus"] + draw.choice([-1, 1])), ("duration_s", job["duration_s"] * draw.uniform(0.5, 1.5)),
            ("halls", [draw.choice("ab")]), ("node_types", ["a100"]), ("sites", ["fra"]), ("preemptible", False),
            ("deadline_s", s["start_s"] + draw.uniform(0, 5000)), ("earliest_s", s["start_s"] + draw.uniform(0, 5000)),
        ])  # fmt: skip
        job[field] = value
    elif what == "margin":
        s["margin_w"] = {draw.choice(["phx", "a", "b", "A"]): draw.uniform(0, 60e3)}
    elif tree["storages"]:
        store = draw.choice(tree["storages"])
        at = draw.randrange(len(store["power_w"]))
        store["power_w"][at] += draw.choice([-30_000, -5000, 5000, 30_000])


def _claim(draw: random.Random, tree: dict) -> None:
    """The plan claims another value or bound than it has."""
    what, step = draw.choice(["value", "bound"]), draw.choice([1, 1000, 10**9])
    tree[what] += step if what == "value" and draw.random() < 0.7 else -step


def _stored(plan: Plan, entry: StoragePlan) -> StoragePlan:
    store = next(store for store in plan.snapshot.site.storages if store.name == entry.name)
    start_j = min(max(int(plan.snapshot.stored_j.get(store.name, store.start_j)), 0), int(store.capacity_j))
    held = trajectory(store, start_j, entry.power_w, plan.snapshot.slot_s)
    return replace(entry, stored_j=tuple(round(part) for part in held))


CANNOT = (
    msgspec.ValidationError,
    PowerhallError,
    ValueError,
    KeyError,
    ArithmeticError,
    StopIteration,
    IndexError,
    RuntimeWarning,  # numpy's, of numbers near the largest
)


def _fitted(tree: dict) -> dict:
    """The plan with all that follows from its decisions made to fit, as far as that is possible."""
    try:
        plan = msgspec.convert(tree, Plan)
        plan = replace(plan, plan_id=snapshot_hash(plan.snapshot), zones=(), plants=())
        plan = replace(plan, storages=tuple(_stored(plan, entry) for entry in plan.storages))
        plan = with_loads(plan, {})
        tree = json.loads(msgspec.json.encode(plan))
        value, bound = value_and_bound(plan)
    except CANNOT:
        return tree
    return tree | {"value": value, "bound": max(bound, value)}


def mutant(draw: random.Random, plan: Plan) -> dict:
    """A plan with a change or two."""
    tree = json.loads(msgspec.json.encode(plan))
    for _ in range(draw.choice([1, 1, 1, 2])):
        draw.choice([_any_leaf, _shape, _decision, _decision, _decision, _world, _world])(draw, tree)
    if draw.random() < 0.7:
        tree = _fitted(tree)
    if draw.random() < 0.03:
        _claim(draw, tree)
    return tree


def _wrong(tree: dict, before: dict) -> list[str]:
    """What the test's own physics finds, and a value or bound that is not that of the same decisions."""
    wrong = faults(tree)
    parts = "plan_id", "assignments", "waiting", "snapshot", "storages", "certificate"
    same = all(tree[part] == before[part] for part in parts)
    if same and (tree["value"] != before["value"] or tree["bound"] < before["bound"]):
        wrong.append(f"value {tree['value']}, bound {tree['bound']}")
    return wrong


def judged(draw: random.Random, plan: Plan, path) -> tuple[str, str]:
    """What became of one changed plan: "accepted", "wrong" with the reason, or "refused" with the kind of the finding.

    The kind is given where the checker found only this kind, and the other physics finds the plan wrong as well: a
    checker without this check would have been found out.
    """
    tree = mutant(draw, plan)
    path.write_bytes(msgspec.json.encode(tree))
    before = json.loads(msgspec.json.encode(plan))
    try:
        found = verify_plan(read_plans(path))
    except PowerhallError as error:
        return ("wrong", f"two lines: {error}") if "\n" in str(error) else ("refused", "")
    except Exception as error:  # noqa: BLE001 - no input may end in a traceback
        return "wrong", f"traceback {type(error).__name__}: {error}"
    kinds = {violation.kind for violation in found}
    if len(kinds) > 1 or kinds & {"number", "nodes", "site"}:
        return "refused", ""
    wrong = _wrong(tree, before)
    if kinds:
        return "refused", kinds.pop() if wrong else ""
    return ("wrong", f"accepted, but {wrong[0]}") if wrong else ("accepted", "")


NEEDED = {
    "bound", "cooling", "deadline", "duration", "eligibility", "gang", "gpus", "jobs", "mode", "power_feed",
    "power_hall", "power_rack", "power_row", "power_site", "residency", "running", "shed", "storage_content",
    "storage_power", "value", "window",
}  # fmt: skip
"""Checks without which a changed plan would have been accepted that the other physics refuses."""


def run(plans: list[Plan], count: int, path, seed: int = 0) -> tuple[Counter[str], Counter[str], list[str]]:
    """Judge `count` changed plans; return the outcomes, how often one kind of check alone held, and what went wrong."""
    outcomes: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        draw = random.Random(seed * 1_000_003 + number)
        outcome, why = judged(draw, plans[number % len(plans)], path)
        outcomes[outcome] += 1
        if outcome == "wrong":
            wrong.append(f"{number}: {why}")
        elif why:
            alone[why] += 1
    return outcomes, alone, wrong


def test_no_changed_plan_is_accepted_that_breaks_physics(plans, tmp_path):
    outcomes, alone, wrong = run(plans, COUNT, tmp_path / "plan.json")
    print(dict(outcomes), dict(sorted(alone.items())))
    assert wrong == []
    assert outcomes["accepted"] > COUNT // 50, "some changes are harmless, and must be taken"
    missing = NEEDED - alone.keys()
    assert not missing or (COUNT < 10_000 and len(missing) < 12), f"no change shows that these are checked: {missing}"
