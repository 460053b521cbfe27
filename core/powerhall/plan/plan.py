"""Snapshot (inputs of a round) and plan (its decisions) as versioned JSON that can be verified alone.

A plan carries its snapshot, so `powerhall-optimizer verify plan.json` needs no other file. Times are whole seconds
since the epoch; slot `i` spans `start_s + i * slot_s` to `start_s + (i + 1) * slot_s`. Powers are whole watts.
"""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected
from powerhall.runtime.files import replace_file
from powerhall.runtime.settings import read_json
from powerhall.site.topology import JobClass, Mode, NodeType, Site

__all__ = [
    "PLAN_VERSION",
    "Assignment",
    "Certificate",
    "Objective",
    "Placement",
    "Plan",
    "Planned",
    "SeveralSites",
    "Snapshot",
    "StoragePlan",
    "WaitCode",
    "Waiting",
    "ZonePlan",
    "gpu_power_w",
    "gpu_speed",
    "read_plan",
    "snapshot_hash",
    "write_plan",
]

PLAN_VERSION = 1


class Objective(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of a plan's value in USD. Shares are parts of the most that a job can earn within the horizon.

    A job that ends after its deadline earns nothing, and a plan that starts one is refused. Stopping a running job
    costs `checkpoint_cost_s` of work.
    """

    usd_per_gpu_h: float = 2.0
    """Value in USD of a GPU hour at full speed and weight 1."""
    carbon_usd_per_t: float = 0.0
    """Price of emissions in USD per tonne of CO2."""
    delay_share: float = 0.1
    """Share of a job's value lost when it ends a horizon later."""
    slow_share: float = 0.05
    """Share of a job's value lost when its mode makes it take twice as long."""
    shift_share: float = 0.02
    """Share of a job's value lost when it starts a horizon later or earlier than in the last plan."""
    move_share: float = 0.002
    """Share of a job's value lost when it changes hall or mode against the last plan."""


class Planned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Place and time at which the last plan would start a job that still waits.

    Changing them costs `shift_share` or `move_share`. `site` is given where several sites are planned together.
    """

    job_id: str
    hall: str
    mode: str
    start_s: int
    site: str | None = None


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All inputs of a round, resolved to slots: immutable, hashed, replayable.

    The tuples of weather, prices ($/MWh) and carbon (g/kWh) have one value per slot, or are empty where not known.
    `down_nodes` cannot be used and draw nothing; `stale_nodes` have no fresh telemetry and count at their worst case:
    they draw their maximum whatever runs on them, and nothing new starts there. `margin_w` is kept free below the
    budget of a zone for the error of the draw forecast. `planned` comes from the last plan and is not hashed.
    """

    taken_s: int
    start_s: int
    slot_s: int
    slots: int
    site: Site
    jobs: tuple[Job, ...]
    dry_bulb_c: tuple[float, ...] = ()
    wet_bulb_c: tuple[float, ...] = ()
    price_per_mwh: tuple[float, ...] = ()
    carbon_g_per_kwh: tuple[float, ...] = ()
    down_nodes: tuple[str, ...] = ()
    stale_nodes: tuple[str, ...] = ()
    allow_raises: bool = True
    margin_w: dict[str, float] = {}
    objective: Objective = Objective()
    planned: tuple[Planned, ...] = ()
    stored_j: dict[str, float] = {}
    """Content of storages at the start, in J; those not named start as in the site file."""


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of one rack (host list) that a job uses, with the same number of GPUs on each."""

    rack: str
    nodes: str
    gpus_per_node: int


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job that runs within the horizon: where, when and how. `end_s` may lie beyond the horizon.

    `gpu_power_w` is the planned draw of each of its GPUs, counted from zero. `running` is true for a job that already
    runs.
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
    RAMP = "ramp"
    SHED = "shed"
    """A running job stops, or a job does not start, to keep a budget."""
    PREEMPTED = "preempted"
    WINDOW = "window"
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


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices that prove the bound: per resource one whole number per slot, in units of value over `scale`.

    A key `NAME//D` prices the resource counted in whole multiples of D (see optimizer-model.md).
    """

    scale: int
    prices: dict[str, tuple[int, ...]]
    stored: dict[str, tuple[int, ...]] = {}
    """Per storage the value of a J in it at the end of each slot, in units of value over `scale * 2**20`."""


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
    notes: tuple[str, ...] = ()
    solve_s: float = 0.0


def gpu_power_w(kind: NodeType, mode: Mode, job_class: JobClass | None) -> float:
    """Return the planned draw of one busy GPU in W, counted from zero: idle share plus the class's part of the rest."""
    draw = 1.0 if job_class is None else job_class.draw.get(mode.name, 1.0)
    idle_w = kind.idle_gpu_power_w
    return idle_w + draw * (mode.gpu_power_w - idle_w)


def gpu_speed(mode: Mode, job_class: JobClass | None) -> float:
    """Return work per second relative to the fastest mode, in (0, 1]."""
    return mode.speed if job_class is None else job_class.speed.get(mode.name, mode.speed)


def snapshot_hash(snapshot: Snapshot) -> str:
    """Return the SHA-256 of the snapshot's canonical JSON: the plan's id, equal for equal inputs.

    The last plan is left out, so that a round that is run twice gives the same plan id.
    """
    inputs = msgspec.structs.replace(snapshot, planned=())
    inputs = msgspec.json.decode(msgspec.json.encode(inputs), type=Snapshot)  # 1 and 1.0 are the same number
    return hashlib.sha256(msgspec.json.encode(inputs, order="sorted")).hexdigest()


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
    if plan.version != PLAN_VERSION:
        raise Rejected.field(str(path), "version", plan.version, f"must be {PLAN_VERSION}")
    return plan


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write plan.json in one step: a reader sees the old file or the new one, never half of one."""
    replace_file(path, msgspec.json.encode(plan))
