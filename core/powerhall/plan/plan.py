"""Snapshot (inputs of a round) and plan (its decisions) as versioned JSON that can be verified alone.

A plan carries its snapshot, so `powerhall-optimizer verify plan.json` needs no other file. Times are whole seconds
since the epoch; slot `i` spans `start_s + i * slot_s` to `start_s + (i + 1) * slot_s`. Powers are whole watts.
"""

from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.hostlist import count_names
from powerhall.plan.snapshot import (
    Held,
    Objective,
    Planned,
    Snapshot,
    gpu_power_w,
    gpu_speed,
    hashed_fields,
    snapshot_hash,
)
from powerhall.runtime.decode.limits import enlarged
from powerhall.runtime.errors import Rejected
from powerhall.runtime.files import replace_file
from powerhall.runtime.settings import read_json
from powerhall.site.topology import Site

__all__ = [
    "PLAN_VERSION",
    "READ_VERSIONS",
    "Assignment",
    "Certificate",
    "Changes",
    "Held",
    "Objective",
    "Placement",
    "Plan",
    "Planned",
    "PlantPlan",
    "SeveralSites",
    "Snapshot",
    "StoragePlan",
    "WaitCode",
    "Waiting",
    "ZonePlan",
    "check_plan",
    "gpu_power_w",
    "gpu_speed",
    "hashed_fields",
    "read_plan",
    "snapshot_hash",
    "write_plan",
]

PLAN_VERSION = 2
READ_VERSIONS = (1, 2)
"""Versions that are read. Value and bound of version 1 are those of a linear model of the site, and are not checked."""


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of one rack (host list) that a job uses, with the same number of GPUs on each."""

    rack: str
    nodes: str
    gpus_per_node: int


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job that runs within the horizon: where, when and how. `end_s` may lie beyond the horizon.

    `gpu_power_w` is the planned draw of each of its GPUs, counted from zero. `running` is true for a job that already
    runs. `beside` names the job with which it shares a GPU: that one has the GPU and its power all the while, and this
    one has 0 `gpus`.
    """

    job_id: str
    hall: str
    node_type: str
    mode: str
    gpus: int
    gpu_power_w: float
    start_s: int
    end_s: int
    placements: tuple[Placement, ...]
    running: bool = False
    reason: str = ""
    beside: str = ""


class WaitCode(StrEnum):
    """Machine-readable reason why a job waits."""

    GPUS = "gpus"
    COOLING = "cooling"
    POWER = "power"
    WORTH = "worth"
    """It fits, but its value within the horizon is below its cost."""
    CAPACITY = "capacity"
    """No start fits beside jobs of more value; not looked into further."""
    PLACEMENT = "placement"
    """Enough is free in all, but not on nodes that it may take together."""
    TOPOLOGY = "topology"
    """No block of the level that it must stay within has its nodes free together."""
    RAMP = "ramp"
    SHED = "shed"
    """A running job stops, or a job does not start, to keep a budget."""
    PREEMPTED = "preempted"
    WINDOW = "window"
    BUDGET = "budget"
    """Its tenant has used up a budget over a period, or jobs of more value take what is left."""
    HELD = "held"
    """Nothing may start, since an input is too old."""
    DEADLINE = "deadline"
    """It cannot end by its deadline any more."""
    INELIGIBLE = "ineligible"
    TOO_LARGE = "too_large"


class Waiting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job that does not start within the horizon, or was stopped, and why.

    `code` is a `WaitCode`, `reason` is for people;
    `binding` names the zones that hold it back; `what_if` has the changes that would start it, in numbers.
    """

    job_id: str
    code: str
    reason: str
    binding: tuple[str, ...] = ()
    earliest_start_s: int | None = None
    what_if: tuple[str, ...] = ()


class ZonePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Planned power of a zone, one value per slot; heat and capacity for halls, prices where the budget binds.

    `price_per_mw` is the value of one more MW for an hour, in USD.
    """

    zone: str
    planned_w: tuple[int, ...]
    budget_w: tuple[int, ...] = ()
    heat_w: tuple[int, ...] = ()
    cooling_capacity_w: tuple[int, ...] = ()
    price_per_mw: tuple[float, ...] = ()


class StoragePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A storage: `power_w` delivered per slot (negative: taken up), content before each slot and at the end.

    `temp_c` is the supply temperature of a loop.
    """

    name: str
    power_w: tuple[int, ...]
    stored_j: tuple[int, ...]
    temp_c: tuple[float, ...] = ()


class PlantPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cooling plant per slot: units to run, heat that it takes, its power, and its water in litres."""

    hall: str
    plant: str
    units: tuple[int, ...]
    heat_w: tuple[int, ...]
    power_w: tuple[int, ...]
    water_l: tuple[int, ...]


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices that prove the bound: per resource one whole number per slot, in units of value over `scale`.

    A key `NAME//D` prices the resource counted in whole multiples of D (see optimizer-model.md).
    """

    scale: int
    prices: dict[str, tuple[int, ...]]
    stored: dict[str, tuple[int, ...]] = {}
    """Per storage the value of a J in it at the end of each slot, in units of value over `scale * 2**20`."""
    points: dict[str, tuple[int, ...]] = {}
    """Loads in W at which lines touch the curves below a limit at the meter: `HALL.it_w`, `HALL.heat_MEDIUM_w`."""
    budgets: dict[str, int] = {}
    """Per budget over a period the price of a J, a millionth of a USD or a mg, in units of value over
    `scale * 2**20`."""


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan changed of the plan before it: starts, places, modes, and jobs that wait again.

    `decisions` are the assignments of that plan whose jobs are still in the queue. `changed` of them are others now;
    of these `forced` had been announced to start within `keep_s` seconds, and a limit or a node forced them, or more of
    the plan's value was at stake than `near_gain` of the settings; their reasons say which. The others moved because
    the plan gains by it, most by at least `move_gain` of the mean value of a decision each.
    """

    plan_id: str
    decisions: int
    changed: int
    forced: int
    started: int
    """Jobs that start in this plan and waited in that one."""
    keep_s: float
    move_gain: float


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan with its snapshot; `value` and `bound` are whole numbers of the objective."""

    version: int
    plan_id: str
    created_s: int
    status: Literal["optimal", "feasible", "fallback"]
    value: int
    bound: int
    gap: float
    """(bound - value) / bound."""
    assignments: tuple[Assignment, ...]
    waiting: tuple[Waiting, ...]
    zones: tuple[ZonePlan, ...]
    snapshot: Snapshot
    certificate: Certificate | None = None
    storages: tuple[StoragePlan, ...] = ()
    plants: tuple[PlantPlan, ...] = ()
    notes: tuple[str, ...] = ()
    solve_s: float = 0.0
    """Seconds from the begin of the round until the plan was made."""
    round_s: float = 0.0
    """Seconds that the round had in all (`--seconds`); 0 where that is not known."""
    work: dict[str, int] = {}
    """Steps done by each stage of the solver: the same for the same inputs, however busy the machine."""
    cut_short: tuple[str, ...] = ()
    """Stages that the deadline cut short; none: the same inputs give the same plan again."""
    changes: Changes | None = None
    """What changed of the plan that this one started from; None where it started from none."""


_LAST_S = 250_000_000_000
"""In the year 9892: the horizon of any plan still ends before the calendar of Python does."""
_MOST_SLOT_S = 86_400
_MOST_NODE_GPUS = 1024
_MOST_GPU_PARTS = 1000
_LEAST_SPEED = 1e-9
_MOST_SLOTS = 100_000
_MOST_PLACED = 4_000_000
"""Nodes of all placements and running jobs together: each of 44,000 for 90 jobs one after the other."""


class SeveralSites(msgspec.Struct, frozen=True):
    """The one field of a plan file that only plans of several sites have."""

    plans: msgspec.Raw = msgspec.Raw()


def read_plan(path: str | Path) -> Plan:
    """Read plan.json; a truncated, unfitting or newer file raises Rejected or ConfigError with one line."""
    try:
        plan = read_json(path, Plan)
    except Rejected:
        if bytes(read_json(path, SeveralSites).plans):
            allowed = "must be the plan of one site; those of the sites lie beside it, such as plan.SITE.json"
            raise Rejected.field(str(path), "plans", "of several sites", allowed) from None
        raise
    if plan.version not in READ_VERSIONS:
        raise Rejected.field(str(path), "version", plan.version, f"must be {' or '.join(map(str, READ_VERSIONS))}")
    check_plan(plan, str(path))
    return plan


def check_plan(plan: Plan, source: str) -> None:
    """Refuse times, slots, node types and host lists that no plan has; Rejected names the field."""
    _check_times(plan, source)
    _check_kinds(plan.snapshot.site, source)
    _check_allowed(plan, source)
    lists = [(f"{a.job_id}: placements", placement.nodes) for a in plan.assignments for placement in a.placements]
    lists += [(f"{job.job_id}: nodes", job.nodes) for job in plan.snapshot.jobs if job.nodes]
    lists += [(f"snapshot.held of {held.job_id}", held.nodes) for held in plan.snapshot.held]
    count, most = 0, enlarged(_MOST_PLACED)
    for field, nodes in lists:
        try:
            names = count_names(nodes)
        except ValueError as error:
            raise Rejected.field(source, field, nodes, str(error)) from None
        count += names
        if not names or count > most:
            allowed = "must name a node" if not names else f"must name at most {most:,} nodes with all others"
            raise Rejected.field(source, field, nodes, allowed)


def _check_kinds(site: Site, source: str) -> None:
    """Refuse sizes and speeds that a site file cannot have: readers make lists of the one and divide by the other."""
    for name, kind in site.node_types.items():
        if not 1 <= kind.gpus <= _MOST_NODE_GPUS:
            allowed = f"must be from 1 to {_MOST_NODE_GPUS}"
            raise Rejected.field(source, f"snapshot.site.node_types.{name}.gpus", kind.gpus, allowed)
        if not 1 <= kind.gpu_parts <= _MOST_GPU_PARTS:
            allowed = f"must be from 1 to {_MOST_GPU_PARTS}"
            raise Rejected.field(source, f"snapshot.site.node_types.{name}.gpu_parts", kind.gpu_parts, allowed)
    modes = [(name, mode.speed) for name, kind in site.node_types.items() for mode in kind.modes]
    for name, speed in modes + [(name, speed) for name, c in site.job_classes.items() for speed in c.speed.values()]:
        if not _LEAST_SPEED <= speed <= 1.0 / _LEAST_SPEED:
            raise Rejected.field(source, f"snapshot.site: {name}: speed", speed, "must be above 0, and 1 at most")


def _check_allowed(plan: Plan, source: str) -> None:
    """Refuse a malformed list of allowed nodes; many jobs share one, so that their names are not counted together."""
    for nodes, job_id in {job.allowed_nodes: job.job_id for job in plan.snapshot.jobs if job.allowed_nodes}.items():
        try:
            count_names(nodes)
        except ValueError as error:
            raise Rejected.field(source, f"{job_id}: allowed_nodes", nodes, str(error)) from None


def _check_times(plan: Plan, source: str) -> None:
    s = plan.snapshot
    if not 1 <= s.slot_s <= _MOST_SLOT_S:
        raise Rejected.field(source, "snapshot.slot_s", s.slot_s, f"must be from 1 to {_MOST_SLOT_S}")
    if not 1 <= s.slots <= _MOST_SLOTS:
        raise Rejected.field(source, "snapshot.slots", s.slots, f"must be from 1 to {_MOST_SLOTS}")
    times = [("created_s", plan.created_s), ("snapshot.taken_s", s.taken_s), ("snapshot.start_s", s.start_s)]
    times += [
        (f"{a.job_id}: {name}", at_s)
        for a in plan.assignments
        for name, at_s in (("start_s", a.start_s), ("end_s", a.end_s))
    ]
    times += [(f"{w.job_id}: earliest_start_s", w.earliest_start_s or 0) for w in plan.waiting]
    for field, at_s in times:
        if not 0 <= at_s <= _LAST_S:
            raise Rejected.field(source, field, at_s, f"must be seconds since the epoch, at most {_LAST_S}")


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write plan.json in one step: a reader sees the old file or the new one, never half of one."""
    replace_file(path, msgspec.json.encode(plan))
