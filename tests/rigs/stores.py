"""A site with a battery, a chilled-water tank and a loop with inertia, and plans of it that were changed by hand."""

import random

import msgspec

from powerhall.jobs import Job
from powerhall.plan.plan import Plan, Snapshot, StoragePlan
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.site.storage import trajectory
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan
from rigs.node_types import H100_NODE

replace = msgspec.structs.replace
START_S = 1_700_000_100
SLOTS = 96
SITE = """
[site]
name = "dam"
power_limit = "140 kW"
losses = {fixed = "1 kW", linear = 0.03, quadratic_per_w = 1e-7}
"""
SITE += H100_NODE
SITE += """
[[halls]]
name = "a"
rows = [{name = "r", racks = [{node_type = "h100", count = 3, nodes = 4}]}]
cooling = [
  {kind = "dry_cooler", capacity = "140 kW", supply_temp = "40 degC", rated_ambient = "30 degC", fan_power = "8 kW"}]

[[feeds]]
name = "main"
power_limit = "130 kW"
members = ["a"]

[[events]]
zone = "dam"
start = 1700010900
end = 1700018100
reduce_percent = 50
"""
STORES = """
[[batteries]]
name = "bess"
energy = "200 kWh"
charge_power = "60 kW"
discharge_power = "80 kW"

[[tanks]]
name = "tank"
hall = "a"
energy = "60 kWh"
charge_power = "25 kW"
discharge_power = "25 kW"
start_share = 0.5

[[loops]]
name = "loop"
hall = "a"
heat_capacity = "10 m3"
max_supply = "W45"
overshoot = "20 kW"
"""


def snapshot_of(text: str, folder, **fields: object) -> Snapshot:
    """Eight hours: a curtailment from slot 36 to 60, and hot air from slot 36 to 72."""
    (folder / "site.toml").write_text(text)
    site, _ = read_site(folder / "site.toml")
    draw = random.Random(5)
    jobs = tuple(
        Job(
            f"j{i}",
            draw.choice([8, 8, 16, 24]),
            draw.randint(30, 300) * 60.0,
            START_S - 60,
            weight=draw.choice([1.0, 2.0]),
        )
        for i in range(50)
    )
    dry = tuple(34.5 if 36 <= slot < 72 else 28.0 for slot in range(SLOTS))
    snapshot = Snapshot(START_S, START_S, 300, SLOTS, site, jobs, dry, tuple(d - 12 for d in dry))
    return replace(snapshot, **fields)


def plan_of(snapshot: Snapshot, seconds: float = 4.0) -> Plan:
    return make_plan(snapshot, RoundSettings(workers=1), seconds, created_s=START_S, log=Log(quiet=True))


def doing(plan: Plan, name: str, powers: dict[int, int]) -> Plan:
    """The plan with other powers of one storage unit at some slots, and the contents that follow from them."""
    storage = next(s for s in plan.snapshot.site.storages if s.name == name)
    entry = next(e for e in plan.storages if e.name == name)
    power_w = tuple(powers.get(slot, watts) for slot, watts in enumerate(entry.power_w))
    held = trajectory(storage, int(storage.start_j), power_w, plan.snapshot.slot_s)
    temps = tuple(storage.temp_c(float(state)) for state in held) if entry.temp_c else ()
    changed = StoragePlan(name, power_w, tuple(int(state) for state in held), temps)
    return replace(plan, storages=tuple(changed if e.name == name else e for e in plan.storages), zones=())


def storage_with(plan: Plan, change, name: str, **fields: object) -> Plan:
    """The plan with other limits of one store."""
    site = plan.snapshot.site
    storages = tuple(replace(s, **fields) if s.name == name else s for s in site.storages)
    return change(plan, site=replace(site, storages=storages))


def kinds(plan: Plan) -> set[str]:
    return {violation.kind for violation in verify_plan(plan)}


def entry_of(plan: Plan, name: str) -> StoragePlan:
    return next(entry for entry in plan.storages if entry.name == name)
