"""site.toml as structs: every section, field, unit, default, range and choice of the file.

Decoding checks each value alone; `site_file` and `storage_reader` check what depends on several. The file and the
planner's `Site` stay two shapes: the file counts racks, lists nodes as ranges, inherits losses and names fields without
units, while the JSON of `Site` is hashed into plan ids and must not change.
"""

from typing import Annotated, Literal

import msgspec

from powerhall.physics.plants.chiller_curves import ChillerCurves
from powerhall.site.billing import BillingTable
from powerhall.site.quantities import Capacity, HeatCapacity, Power, RampRate, RatedPower, SupplyLimit, Temperature

NAME = "must be a name without spaces, '/', ',', '=', quotes or backslashes"

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Efficiency = Annotated[float, msgspec.Meta(ge=0.1, le=1.0)]
UsdPerMwh = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
Speed = Annotated[float, msgspec.Meta(ge=1e-3, le=1.0)]
StaleForecast = Literal["worst_case", "hold_last", "refuse"]
Draw = Annotated[float, msgspec.Meta(ge=1e-3, le=10.0)]


def is_name(text: str) -> bool:
    """Return whether text can be the name of a zone, a mode or a storage; dots and colons may stand in it."""
    return bool(text) and text.isprintable() and not any(c in text for c in "/,=\" \\\n\t'")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table whose unknown keys are refused by name."""


class LossesTable(Strict, frozen=True):
    """Losses of the power chain."""

    fixed: Power = Power("0 W")
    """Losses at no load."""
    linear: Share = 0.0
    """Losses per W of IT power."""
    quadratic_per_w: Share = 0.0
    """Losses per W of IT power squared."""


class ModeTable(Strict, frozen=True):
    """A power mode of a node type."""

    name: str
    """Name of the mode in plans and schedulers."""
    gpu_power: Power
    """Planning figure of one busy GPU with its share of the node, counted from zero; between the GPU's share of
    idle and of maximum power."""
    speed: Speed
    """Work per second relative to the fastest mode."""
    kind: Literal["power_limit", "clock_lock"] = "power_limit"
    """How the mode holds the GPU: by a power limit or by a lock of the SM clock."""
    gpu_power_limit: Power | None = None
    """Power limit to set on the GPU, such as `700 W`."""
    sm_clock_mhz: float | None = None
    """SM clock to lock, in MHz; required for `clock_lock`."""


class NodeTypeTable(Strict, frozen=True):
    """A kind of node."""

    gpu: str
    """GPU model, such as `H100`."""
    gpus: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    """GPUs per node."""
    idle_power: Power
    """Power of an idle node."""
    max_power: Power
    """Highest power of a node; above `idle_power`."""
    modes: tuple[ModeTable, ...]
    """Power modes of the GPUs, at least one."""
    safe_cap: Power | None = None
    """Power of a node while no lease is in force, from `idle_power` to `max_power`; absent is `idle_power`."""
    liquid_fraction: Share = 0.0
    """Share of the heat that goes to liquid."""
    gpu_parts: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    """Equal parts in which jobs may share a GPU: shards, MPS or time slices, MIG instances; 1: GPUs are not shared."""
    mig: bool = False
    """Every GPU is split into `gpu_parts` MIG instances: a job takes one, and none takes a whole GPU."""
    gpu_fill: bool = False
    """The scheduler gives parts of one GPU after the other, and says which GPU each is on, as Slurm does with shards
    and MPS; without it each part is planned with a GPU of its own."""


class JobClassTable(Strict, frozen=True):
    """A class of jobs."""

    draw: dict[str, Draw] = {}
    """By mode: draw above idle relative to the mode's figure."""
    speed: dict[str, Speed] = {}
    """By mode: speed relative to the fastest mode."""


class PlantTable(Strict, frozen=True):
    """A cooling plant."""

    kind: str
    """`fixed` ignores the weather, `dry_cooler` follows the dry bulb, `tower_chiller` and `evaporative` the wet bulb,
    `adiabatic` both; `chiller` follows its curve set and what is at its condenser."""
    capacity: Power
    """Heat that it takes up at `rated_ambient`, all units together; of a `chiller` at its curves' reference point."""
    name: str | None = None
    """Name of the plant; absent is `plant1`, `plant2`, ..."""
    serves: Literal["all", "liquid", "air"] = "all"
    """Part of the heat that it takes up; a hall has plants for `all`, or for both `liquid` and `air`."""
    supply_temp: Temperature = Temperature("32 degC")
    """Supply temperature at the set point; of a `chiller` the temperature that leaves its evaporator."""
    return_rise_k: Annotated[float, msgspec.Meta(ge=1.0, le=40.0)] = 10.0
    """Rise from supply to return at full load, in K."""
    approach_k: Annotated[float, msgspec.Meta(ge=0.5, le=30.0)] = 6.0
    """Least difference between ambient and supply, in K."""
    rated_ambient: Temperature = Temperature("25 degC")
    """Dry or wet bulb at which `capacity` holds."""
    cop: Annotated[float, msgspec.Meta(ge=0.5, le=100.0)] | None = None
    """Coefficient of performance: heat per electric power; absent is 6, of a `chiller` that of its curve set."""
    fan_power: Power = Power("0 W")
    """Fan power at full load."""
    pump_power: Power = Power("0 W")
    """Pump power."""
    free_cooling: bool = True
    """Tower or dry cooler cool without the chiller while the weather allows."""
    units: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Equal units that make up the plant; those run that draw the least power together."""
    min_part_load: Annotated[float, msgspec.Meta(ge=0.0, le=0.9)] = 0.0
    """Least part of its capacity at which a unit runs; with less heat it runs part of the time."""
    heat_rejection: Literal["tower", "dry", "air"] = "tower"
    """At the condenser of a `chiller`: cooling tower, dry cooler, or outdoor air."""
    pad_effectiveness: Annotated[float, msgspec.Meta(ge=0.1, le=1.0)] = 0.8
    """How far the pad of an `adiabatic` cooler brings the air from dry to wet bulb."""
    concentration_cycles: Annotated[float, msgspec.Meta(ge=1.1, le=50.0)] = 3.0
    """Minerals in the water of tower or pad over those of the make-up water, held by blow-down."""
    drift_share: Annotated[float, msgspec.Meta(ge=0.0, le=0.01)] = 8e-5
    """Drift of a tower as a share of the water that circulates."""
    curves: ChillerCurves | None = None
    """Curve set of a `chiller`."""
    curves_file: str | None = None
    """CSV or JSON file of curve sets, instead of `curves`."""
    curve_set: str | None = None
    """Name of the curve set in the file; needed where it has several."""


class RackTable(Strict, frozen=True):
    """Racks of one kind, `count` of them: numbered `name01` and on, but a single one with a name keeps it.

    Racks without a name are called k01 and on.
    """

    node_type: str
    """Key of its node type in `node_types`."""
    name: str | None = None
    """Name of the rack; with `count` above 1 a number is appended. Racks without a name are `k01` and on."""
    count: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    """Number of such racks."""
    nodes: int | str = 1
    """Number of nodes per rack, from 1 to 10000, or their names as a host list, such as `gn[01-16]`."""
    power_limit: Power | None = None
    """Limit of its IT power, such as `900 kW`; absent is no limit."""
    meters: tuple[str, ...] = ()
    """Devices of the gateway whose `power_w` together is its IT power, such as its PDUs; `{rack}` is its name."""


class RowTable(Strict, frozen=True):
    """A row of racks."""

    name: str
    """Name of the row; its zone is `HALL/ROW`."""
    racks: tuple[RackTable, ...]
    """Its racks."""
    power_limit: Power | None = None
    """Limit of its IT power, such as `900 kW`; absent is no limit."""


class HallTable(Strict, frozen=True):
    """A hall."""

    name: str
    """Name of the hall, which is its zone."""
    rows: tuple[RowTable, ...]
    """Its rows."""
    cooling: tuple[PlantTable, ...] = ()
    """Its cooling plants; without any its heat has no limit."""
    losses: LossesTable | None = None
    """Losses of its power chain; absent is `site.losses`."""
    power_limit: Power | None = None
    """Limit of its IT power, such as `900 kW`; absent is no limit."""
    meters: tuple[str, ...] = ()
    """Devices of the gateway whose `power_w` together is its IT power, behind the losses."""


class FeedTable(Strict, frozen=True):
    """An electrical feed."""

    name: str
    """Name of the feed, which is its zone."""
    power_limit: Power
    """Limit of the IT power under it."""
    members: tuple[str, ...] = ()
    """Zones that it carries: halls, rows (`hall1/row1`) or racks."""
    parent: str | None = None
    """Feed that it hangs under."""


class BlocksTable(Strict, frozen=True):
    """A level of blocks: nodes that a job may have to stay within, by exactly one of `each`, `members` and `file`.

    `rack`, `row` and `hall` are levels without a table. No node may be in two blocks of a level.
    """

    each: Literal["rack", "row", "hall"] | None = None
    """Every zone of this kind is a block, such as each rack an NVLink domain."""
    nodes: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    """With `each`: cut every zone into blocks of so many nodes, in their order."""
    node_types: tuple[str, ...] = ()
    """With `each`: only nodes of these types; absent is all."""
    members: dict[str, tuple[str, ...]] | None = None
    """Blocks by name, each with its zones (`hall1/row1`) and host lists (`gn[01-18]`)."""
    file: str | None = None
    """Slurm's `topology.conf` or `topology.yaml`, the output of `scontrol show topology` (with or without `--json`),
    or that of `kubectl get nodes -o json`. Nodes that the site does not have are skipped."""
    topology: str | None = None
    """Name of the topology in `topology.yaml`; absent is the one with `cluster_default`, else the first."""
    tier: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """With a file of Slurm: 1 are leaf switches or blocks, 2 the switches above, or the second of `BlockSizes`."""
    label: str | None = None
    """Node label that tells the blocks apart, such as `nvidia.com/gpu.clique`; needed for a file of Kubernetes.
    Jobs in Kubernetes may name the level by it."""


class BatteryTable(Strict, frozen=True):
    """A battery at the site's meter or at a feed."""

    name: str
    """Name of the battery."""
    energy: Capacity
    """Energy that it can deliver when full, such as `4 MWh`."""
    charge_power: RatedPower
    """Highest power that it takes up."""
    discharge_power: RatedPower
    """Highest power that it delivers."""
    at: str | None = None
    """The site or a feed; absent is the site. Feeds above it must carry whole halls."""
    round_trip: Efficiency = 0.88
    """Energy delivered per energy taken up."""
    min_share: Share = 0.1
    """Share of the content that always stays."""
    start_share: Share = 0.5
    """Share of the content at the start where neither meter nor last plan gives it."""
    end_share: Share | None = None
    """Share of the content wanted at the end of the plan; absent is `start_share`."""
    cycle_usd_per_mwh: UsdPerMwh = 10.0
    """Wear in USD per MWh delivered."""
    refill_usd_per_mwh: UsdPerMwh = 10_000.0
    """Value in USD per MWh of content missing at the end of the plan."""


class TankTable(Strict, frozen=True):
    """A chilled-water tank at a hall's cooling plant."""

    name: str
    """Name of the tank."""
    hall: str
    """Hall whose plants it stands beside."""
    energy: Capacity
    """Heat that it can take up when cold, such as `6 MWh`."""
    charge_power: RatedPower
    """Most heat that the plants take up on top of the hall's to cool it down."""
    discharge_power: RatedPower
    """Most heat that it takes up from the hall."""
    serves: Literal["all", "liquid", "air"] = "all"
    """Plants that it stands beside, as their `serves`."""
    efficiency: Efficiency = 1.0
    """Stored per taken up."""
    loss_per_h: Annotated[float, msgspec.Meta(ge=0.0, le=0.5)] = 0.002
    """Share of the content lost per hour."""
    min_share: Share = 0.0
    """Share of the content that always stays."""
    start_share: Share = 1.0
    """Share of the content at the start where neither meter nor last plan gives it."""
    end_share: Share | None = None
    """Share of the content wanted at the end of the plan; absent is `start_share`."""
    refill_usd_per_mwh: UsdPerMwh = 10_000.0
    """Value in USD per MWh of content missing at the end of the plan."""


class LoopTable(Strict, frozen=True):
    """The thermal inertia of a hall's cooling loop."""

    name: str
    """Name of the loop."""
    hall: str
    """Hall of the loop."""
    heat_capacity: HeatCapacity
    """Water in the loop, such as `60 m3` (4.18 MJ per m3 and K), or such as `250 MJ/K`."""
    max_supply: SupplyLimit
    """Highest supply temperature: ASHRAE class `W17`, `W27`, `W32`, `W40`, `W45`, or a temperature."""
    overshoot: RatedPower
    """Most heat above what the plants take up."""
    recovery: RatedPower | None = None
    """Most heat that the plants take up on top of the hall's; absent is `overshoot`."""
    serves: Literal["all", "liquid", "air"] = "all"
    """Plants of the loop, as their `serves`."""
    min_supply: Temperature | None = None
    """Lowest supply temperature; absent is the set point of the plants."""
    start_supply: Temperature | None = None
    """Supply temperature at the start; absent is the set point of the plants."""
    max_return: Temperature | None = None
    """Highest return temperature; absent is no limit."""
    refill_usd_per_mwh: UsdPerMwh = 10_000.0
    """Value in USD per MWh of content missing at the end of the plan."""


class EventTable(Strict, frozen=True):
    """A curtailment, a demand-response event or maintenance."""

    zone: str
    """Zone whose limit changes: the site, a feed, a hall, `HALL/ROW` or `HALL/ROW/RACK`."""
    start: str | float
    """Start, as ISO 8601 or seconds since the epoch."""
    end: str | float = ""
    """End, after the start; this or `duration`."""
    duration: str | float = ""
    """Length, such as "1 h" or "PT1H"; 0 is open-ended."""
    power_limit: str | None = None
    """Limit during the event; one of this, `reduce_percent` and `reduce_by`."""
    reduce_percent: float | str | None = None
    """Reduction of the zone's limit in percent."""
    reduce_by: str | None = None
    """Reduction of the zone's limit as a power."""


class SiteTable(Strict, frozen=True):
    """The site itself."""

    name: str
    """Name of the site, which is its zone."""
    power_limit: Power | None = None
    """Limit of the power at the meter: IT, losses and cooling."""
    grid_budget: str | None = None
    """CSV file of a time-varying limit at the meter."""
    events: str | None = None
    """JSON file of events, as the shed service keeps it."""
    ramp_down: RampRate | None = None
    """Fastest fall of the power at the meter, such as `20 MW/min`."""
    ramp_up: RampRate | None = None
    """Fastest rise of the power at the meter, such as `5 MW/min`."""
    losses: LossesTable = LossesTable()
    """Losses of the power chain of each hall that names none of its own."""
    timezone: str | None = None
    """IANA time zone, such as `Europe/Berlin`, of times without an offset in this file and the files that it names;
    absent is UTC, and a column `datetime_local` is refused."""
    altitude_m: Annotated[float, msgspec.Meta(ge=-500.0, le=6000.0)] | None = None
    """Altitude in m, for the air pressure; absent is what the weather file says, or sea level."""


class PlanningTable(Strict, frozen=True):
    """Files that the plan needs, relative to site.toml."""

    weather: str | None = None
    """EPW or CSV file of the weather; required for plants that depend on it."""
    prices: str | None = None
    """CSV file of electricity prices."""
    carbon: str | None = None
    """CSV file of the carbon intensity of electricity."""
    stale_forecast: StaleForecast = "worst_case"
    """What a plan does where weather, prices, carbon or the grid budget have no value: take the worst case, hold the
    last value, or refuse the plan. The first two are noted in the plan and raise the alarm `stale_forecast`."""


class SiteFile(Strict, frozen=True):
    """The whole file."""

    site: SiteTable
    """The site."""
    node_types: dict[str, NodeTypeTable]
    """Node types by name."""
    halls: tuple[HallTable, ...]
    """The halls, at least one."""
    feeds: tuple[FeedTable, ...] = ()
    """Electrical feeds."""
    job_classes: dict[str, JobClassTable] = {}
    """Job classes by name; each job names one."""
    blocks: dict[str, BlocksTable] = {}
    """Levels of blocks by name, such as `nvlink_domain`; a job names the one that it must stay within."""
    events: tuple[EventTable, ...] = ()
    """Curtailments, demand-response events and maintenance."""
    batteries: tuple[BatteryTable, ...] = ()
    """Batteries."""
    tanks: tuple[TankTable, ...] = ()
    """Chilled-water tanks."""
    loops: tuple[LoopTable, ...] = ()
    """Cooling loops with thermal inertia."""
    planning: PlanningTable = PlanningTable()
    """Files with weather, prices and carbon intensity."""
    billing: BillingTable = BillingTable()
    """Who pays for energy, and by which meters."""
