"""site.toml as structs: every section, field, unit, default, range and choice of the file.

Decoding checks each value alone; `site_file` and `storage_reader` check what depends on several. The file and the
planner's `Site` stay two shapes: the file counts racks, lists nodes as ranges, inherits losses and names fields without
units, while the JSON of `Site` is hashed into plan ids and must not change.
"""

from typing import Annotated, Literal

import msgspec

from powerhall.site.quantities import Capacity, HeatCapacity, Power, RampRate, RatedPower, SupplyLimit, Temperature

NAME = "must be a name without spaces, '/', ',', '=', quotes or backslashes"

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Efficiency = Annotated[float, msgspec.Meta(ge=0.1, le=1.0)]
UsdPerMwh = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
Speed = Annotated[float, msgspec.Meta(ge=1e-3, le=1.0)]
Draw = Annotated[float, msgspec.Meta(ge=1e-3, le=10.0)]


def is_name(text: str) -> bool:
    """Say whether text can be the name of a zone, a mode or a storage; dots and colons may stand in it."""
    return bool(text) and text.isprintable() and not any(c in text for c in "/,=\" \\\n\t'")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table whose unknown keys are refused by name."""


class LossesTable(Strict, frozen=True):
    """Losses of the power chain."""

    fixed: Power = Power("0 W")
    linear: Share = 0.0
    quadratic_per_w: Share = 0.0


class ModeTable(Strict, frozen=True):
    """A power mode of a node type."""

    name: str
    gpu_power: Power
    speed: Speed
    kind: Literal["power_limit", "clock_lock"] = "power_limit"
    gpu_power_limit: Power | None = None
    sm_clock_mhz: float | None = None


class NodeTypeTable(Strict, frozen=True):
    """A kind of node."""

    gpu: str
    gpus: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    idle_power: Power
    max_power: Power
    modes: tuple[ModeTable, ...]
    safe_cap: Power | None = None
    liquid_fraction: Share = 0.0


class JobClassTable(Strict, frozen=True):
    """A class of jobs."""

    draw: dict[str, Draw] = {}
    speed: dict[str, Speed] = {}


class PlantTable(Strict, frozen=True):
    """A cooling plant."""

    kind: str
    capacity: Power
    name: str | None = None
    serves: Literal["all", "liquid", "air"] = "all"
    supply_temp: Temperature = Temperature("32 degC")
    return_rise_k: Annotated[float, msgspec.Meta(ge=1.0, le=40.0)] = 10.0
    approach_k: Annotated[float, msgspec.Meta(ge=0.5, le=30.0)] = 6.0
    rated_ambient: Temperature = Temperature("25 degC")
    cop: Annotated[float, msgspec.Meta(ge=0.5, le=100.0)] = 6.0
    fan_power: Power = Power("0 W")
    pump_power: Power = Power("0 W")
    free_cooling: bool = True


class RackTable(Strict, frozen=True):
    """Racks of one kind, `count` of them: numbered `name01` and on, but a single one with a name keeps it.

    Racks without a name are called k01 and on.
    """

    node_type: str
    name: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    nodes: int | str = 1
    power_limit: Power | None = None


class RowTable(Strict, frozen=True):
    """A row of racks."""

    name: str
    racks: tuple[RackTable, ...]
    power_limit: Power | None = None


class HallTable(Strict, frozen=True):
    """A hall."""

    name: str
    rows: tuple[RowTable, ...]
    cooling: tuple[PlantTable, ...] = ()
    losses: LossesTable | None = None
    power_limit: Power | None = None


class FeedTable(Strict, frozen=True):
    """An electrical feed."""

    name: str
    power_limit: Power
    members: tuple[str, ...] = ()
    parent: str | None = None


class BatteryTable(Strict, frozen=True):
    """A battery at the site's meter or at a feed."""

    name: str
    energy: Capacity
    charge_power: RatedPower
    discharge_power: RatedPower
    at: str | None = None
    round_trip: Efficiency = 0.88
    min_share: Share = 0.1
    start_share: Share = 0.5
    end_share: Share | None = None
    cycle_usd_per_mwh: UsdPerMwh = 10.0
    refill_usd_per_mwh: UsdPerMwh = 10_000.0


class TankTable(Strict, frozen=True):
    """A chilled-water tank at a hall's cooling plant."""

    name: str
    hall: str
    energy: Capacity
    charge_power: RatedPower
    discharge_power: RatedPower
    serves: Literal["all", "liquid", "air"] = "all"
    efficiency: Efficiency = 1.0
    loss_per_h: Annotated[float, msgspec.Meta(ge=0.0, le=0.5)] = 0.002
    min_share: Share = 0.0
    start_share: Share = 1.0
    end_share: Share | None = None
    refill_usd_per_mwh: UsdPerMwh = 10_000.0


class LoopTable(Strict, frozen=True):
    """The thermal inertia of a hall's cooling loop."""

    name: str
    hall: str
    heat_capacity: HeatCapacity
    max_supply: SupplyLimit
    overshoot: RatedPower
    recovery: RatedPower | None = None
    serves: Literal["all", "liquid", "air"] = "all"
    min_supply: Temperature | None = None
    start_supply: Temperature | None = None
    max_return: Temperature | None = None
    refill_usd_per_mwh: UsdPerMwh = 10_000.0


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
    power_limit: Power | None = None
    grid_budget: str | None = None
    events: str | None = None
    ramp_down: RampRate | None = None
    ramp_up: RampRate | None = None
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
