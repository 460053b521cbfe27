"""The tables of site.toml as they are written: text quantities with units, defaults, no unknown keys."""

from typing import Literal

import msgspec


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table whose unknown keys are refused by name."""


class LossesTable(Strict, frozen=True):
    """Losses of the power chain."""

    fixed: str = "0 W"
    linear: float = 0.0
    quadratic_per_w: float = 0.0


class ModeTable(Strict, frozen=True):
    """A power mode of a node type."""

    name: str
    gpu_power: str
    speed: float
    kind: Literal["power_limit", "clock_lock"] = "power_limit"
    gpu_power_limit: str | None = None
    sm_clock_mhz: float | None = None


class NodeTypeTable(Strict, frozen=True):
    """A kind of node."""

    gpu: str
    gpus: int
    idle_power: str
    max_power: str
    modes: tuple[ModeTable, ...]
    safe_cap: str | None = None
    liquid_fraction: float = 0.0


class JobClassTable(Strict, frozen=True):
    """A class of jobs."""

    draw: dict[str, float] = {}
    speed: dict[str, float] = {}


class PlantTable(Strict, frozen=True):
    """A cooling plant."""

    kind: str
    capacity: str
    name: str | None = None
    serves: Literal["all", "liquid", "air"] = "all"
    supply_temp: str = "32 degC"
    return_rise_k: float = 10.0
    approach_k: float = 6.0
    rated_ambient: str = "25 degC"
    cop: float = 6.0
    fan_power: str = "0 W"
    pump_power: str = "0 W"
    free_cooling: bool = True


class RackTable(Strict, frozen=True):
    """Racks of one kind; `count` of them when more than one."""

    node_type: str
    name: str = "k"
    count: int = 1
    nodes: int | str = 1
    power_limit: str | None = None


class RowTable(Strict, frozen=True):
    """A row of racks."""

    name: str
    racks: tuple[RackTable, ...]
    power_limit: str | None = None


class HallTable(Strict, frozen=True):
    """A hall."""

    name: str
    rows: tuple[RowTable, ...]
    cooling: tuple[PlantTable, ...] = ()
    losses: LossesTable | None = None
    power_limit: str | None = None


class FeedTable(Strict, frozen=True):
    """An electrical feed."""

    name: str
    power_limit: str
    members: tuple[str, ...] = ()
    parent: str | None = None


class BatteryTable(Strict, frozen=True):
    """A battery at the site's meter or at a feed."""

    name: str
    energy: str
    charge_power: str
    discharge_power: str
    at: str | None = None
    round_trip: float = 0.88
    min_share: float = 0.1
    start_share: float = 0.5
    end_share: float | None = None
    cycle_usd_per_mwh: float = 10.0
    refill_usd_per_mwh: float = 10_000.0


class TankTable(Strict, frozen=True):
    """A chilled-water tank at a hall's cooling plant."""

    name: str
    hall: str
    energy: str
    charge_power: str
    discharge_power: str
    serves: Literal["all", "liquid", "air"] = "all"
    efficiency: float = 1.0
    loss_per_h: float = 0.002
    min_share: float = 0.0
    start_share: float = 1.0
    end_share: float | None = None
    refill_usd_per_mwh: float = 10_000.0


class LoopTable(Strict, frozen=True):
    """The thermal inertia of a hall's cooling loop."""

    name: str
    hall: str
    heat_capacity: str
    max_supply: str
    overshoot: str
    recovery: str | None = None
    serves: Literal["all", "liquid", "air"] = "all"
    min_supply: str | None = None
    start_supply: str | None = None
    max_return: str | None = None
    refill_usd_per_mwh: float = 10_000.0


class EventTable(Strict, frozen=True):
    """A curtailment, a demand-response event or maintenance."""

    zone: str
    start: str | float
    end: str | float
    power_limit: str | None = None
    reduce_percent: float | None = None


class SiteTable(Strict, frozen=True):
    """The site itself."""

    name: str
    power_limit: str | None = None
    grid_budget: str | None = None
    events: str | None = None
    ramp_down: str | None = None
    ramp_up: str | None = None
    losses: LossesTable = LossesTable()


class PlanningTable(Strict, frozen=True):
    """Files that the plan needs, relative to site.toml."""

    weather: str | None = None
    prices: str | None = None
    carbon: str | None = None


class SiteFile(Strict, frozen=True):
    """The whole file."""

    site: SiteTable
    node_types: dict[str, NodeTypeTable]
    halls: tuple[HallTable, ...]
    feeds: tuple[FeedTable, ...] = ()
    job_classes: dict[str, JobClassTable] = {}
    events: tuple[EventTable, ...] = ()
    batteries: tuple[BatteryTable, ...] = ()
    tanks: tuple[TankTable, ...] = ()
    loops: tuple[LoopTable, ...] = ()
    planning: PlanningTable = PlanningTable()
