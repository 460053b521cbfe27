"""Snapshot: all inputs of a round, resolved to slots, and its hash.

Times are whole seconds since the epoch; slot `i` spans `start_s + i * slot_s` to `start_s + (i + 1) * slot_s`. Powers
are whole watts.
"""

import hashlib
from datetime import tzinfo

import msgspec

from powerhall.forecasts.local_time import parse_zone
from powerhall.jobs.left_out import LeftOut
from powerhall.jobs.model import Job
from powerhall.physics.plants.plant import LATER_FIELDS as PLANT_LATER_FIELDS
from powerhall.physics.plants.plant import Plant
from powerhall.plan.demand import DemandTerm
from powerhall.plan.period_budget import PeriodBudget
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import JobClass, Mode, NodeType, Site

__all__ = ["Held", "Objective", "Planned", "Snapshot", "gpu_power_w", "gpu_speed", "hashed_fields", "snapshot_hash"]

_LATER_FIELDS = (
    *("stale_forecasts", "left_out", "starts_held", "off_nodes", "held"),
    *("period_budgets", "demand", "timezone"),
)
_LATER_JOB_FIELDS = (
    *("gpus_on_nodes", "allowed_nodes", "within", "block_nodes", "gpu_share"),
    *("project", "tenant", "billed_as"),
)
"""Fields of the snapshot and of its jobs that count in a plan's id only where they are not empty."""


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


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """GPUs that something outside the plan uses for its whole horizon: a running job that no plan can have.

    `gpus` on each of `nodes` (host list) are nobody else's, and draw `gpu_power_w` each, counted from zero.
    """

    job_id: str
    nodes: str
    gpus: int
    gpu_power_w: float


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All inputs of a round, resolved to slots: immutable, hashed, replayable.

    The tuples of weather, prices ($/MWh) and carbon (g/kWh) have one value per slot, or are empty where not known.
    `down_nodes` take nothing new; they draw their idle power and that of what runs on them. `off_nodes` draw nothing.
    `stale_nodes` have no fresh telemetry and count at their worst case: they draw their maximum whatever runs on them,
    and nothing new starts there. `held` are GPUs of running jobs that are no part of the plan. `margin_w` is kept free
    below the budget of a zone for the error of the draw forecast. `planned` comes from the last plan and is not hashed.
    In a plan of version 1 `down_nodes` draw nothing.
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
    stale_forecasts: tuple[str, ...] = ()
    """A line on each file of weather, prices, carbon or budgets that does not cover the plan, and what holds there."""
    left_out: tuple[LeftOut, ...] = ()
    """Jobs of the queue that cannot be planned with. Those that run are in `held`, or their nodes in `stale_nodes`."""
    starts_held: str = ""
    """Why nothing may start, such as a queue that is too old; empty where jobs may start."""
    off_nodes: tuple[str, ...] = ()
    held: tuple[Held, ...] = ()
    period_budgets: tuple[PeriodBudget, ...] = ()
    """Budgets of tenants over a period: no job starts that could exceed one."""
    demand: tuple[DemandTerm, ...] = ()
    """Demand charges: the plan pays for what it raises the month's peaks."""
    timezone: str = ""
    """IANA name of the site's time zone, in which people read the plan; empty is UTC. Not hashed."""

    @property
    def zone(self) -> tzinfo | None:
        """The site's time zone, of times without an offset; None for UTC. One that is not known raises Rejected."""
        try:
            return parse_zone(self.timezone) if self.timezone else None
        except ValueError as error:
            raise Rejected.field("plan", "snapshot.timezone", self.timezone, str(error)) from None


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

    The last plan is left out, so that a round that is run twice gives the same plan id, and so is the time zone.
    """
    return hashlib.sha256(msgspec.json.encode(hashed_fields(snapshot), order="sorted")).hexdigest()


def hashed_fields(snapshot: Snapshot) -> dict[str, object]:
    """Return the fields of a snapshot that its plan's id depends on, as plain values."""
    inputs = msgspec.structs.replace(snapshot, planned=(), timezone="")
    inputs = msgspec.json.decode(msgspec.json.encode(inputs), type=Snapshot)  # 1 and 1.0 are the same number
    fields: dict[str, object] = msgspec.to_builtins(inputs)
    fields["site"] = _site_fields(inputs.site)
    for name in _LATER_FIELDS:
        if not fields[name]:
            del fields[name]  # ids of plans from before the field stay
    for budget in fields.get("period_budgets", ()):  # type: ignore[attr-defined]
        if not budget["held"]:
            del budget["held"]
    jobs: list[dict[str, object]] = fields["jobs"]  # type: ignore[assignment]
    for entry in (*jobs, *fields.get("left_out", ())):  # type: ignore[misc]
        for name in _LATER_JOB_FIELDS:
            if not entry.get(name, True):
                del entry[name]
        if entry.get("gpu_number", 0) is None:
            del entry["gpu_number"]
    return fields


def _site_fields(site: Site) -> dict[str, object]:
    """Return a site as plain values, without later fields at their defaults: ids from before them stay."""
    fields: dict[str, object] = msgspec.to_builtins(site)
    for name in ("levels", "meters"):
        if not fields[name]:
            del fields[name]
    defaults = msgspec.to_builtins(Plant("", "", 0.0))
    kinds: dict[str, dict[str, object]] = fields["node_types"]  # type: ignore[assignment]
    for kind in kinds.values():
        if (kind["gpu_parts"], kind["mig"], kind["gpu_fill"]) == (1, False, False):
            del kind["gpu_parts"], kind["mig"], kind["gpu_fill"]
    halls: list[dict[str, list[dict[str, object]]]] = fields["halls"]  # type: ignore[assignment]
    for hall in halls:
        for plant in hall["plants"]:
            for name in PLANT_LATER_FIELDS:
                if plant[name] == defaults[name]:
                    del plant[name]
    return fields
