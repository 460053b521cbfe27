"""Topology of a site: site > hall > row > rack > node, with power limits, feeds, losses and cooling plants.

Each level limits a different power:
* racks, rows, feeds and halls limit **IT power**: idle power of all their nodes plus what the jobs add;
* a hall's cooling plants limit **heat**: IT power plus the losses of the power chain inside the hall;
* the site limits **facility power** at the meter: IT power, losses and cooling power of all halls.
All powers are in W, temperatures in degC. `powerhall.site.site_file` reads this from site.toml.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.site.storage import Storage
from powerhall.timeseries import Series

__all__ = ["Block", "BlockLevel", "Feed", "Hall", "JobClass", "Losses", "Mode", "NodeType", "Rack", "RackRow", "Site"]


class Mode(msgspec.Struct, frozen=True):
    """A power mode of a GPU: a power limit or a clock lock, with the power of a busy GPU and its speed.

    `gpu_power_w` is the planned power per busy GPU, including its share of the rest of the node, counted from zero (not
    from idle). `speed` is work per second relative to the fastest mode, in (0, 1].
    """

    name: str
    kind: Literal["power_limit", "clock_lock"]
    gpu_power_w: float
    speed: float
    gpu_power_limit_w: float | None = None
    sm_clock_mhz: float | None = None


class NodeType(msgspec.Struct, frozen=True):
    """A type of node. Modes are ordered fastest first.

    `safe_cap_w` is the node's power when no lease is in force; it must lie between idle and maximum. Jobs may share a
    GPU in `gpu_parts` equal parts; with `mig` these are instances, and no GPU is given whole. `gpu_fill`: parts go to a
    GPU that has some in use before they go to another one.
    """

    name: str
    gpu: str
    gpus: int
    idle_power_w: float
    max_power_w: float
    safe_cap_w: float
    liquid_fraction: float
    modes: tuple[Mode, ...]
    gpu_parts: int = 1
    mig: bool = False
    gpu_fill: bool = False

    @property
    def idle_gpu_power_w(self) -> float:
        """A GPU's share of the idle node in W."""
        return self.idle_power_w / self.gpus

    def find_mode(self, name: str | None) -> Mode | None:
        """Return the mode of this name; None when there is none."""
        return next((mode for mode in self.modes if mode.name == name), None)

    def mode(self, name: str) -> Mode:
        """Return the mode of this name; KeyError when there is none."""
        mode = self.find_mode(name)
        if mode is None:
            raise KeyError(name)
        return mode

    def modes_from(self, name: str) -> tuple[Mode, ...]:
        """Return the mode of this name and all that follow it (slower ones); KeyError when there is none."""
        return self.modes[self.modes.index(self.mode(name)) :]


class JobClass(msgspec.Struct, frozen=True):
    """Power and speed of a class of jobs per mode, relative to the mode's planning figures.

    `draw[mode]` scales the mode's power above idle; `speed[mode]` replaces the mode's speed.
    """

    name: str
    draw: dict[str, float] = {}
    speed: dict[str, float] = {}


class Losses(msgspec.Struct, frozen=True):
    """Losses of the power chain of a hall: `fixed_w + linear * P + quadratic_per_w * P**2` with P its IT power in W."""

    fixed_w: float = 0.0
    linear: float = 0.0
    quadratic_per_w: float = 0.0

    def power_w(self, it_power_w: float) -> float:
        """Return the losses in W at this IT power."""
        return self.fixed_w + (self.linear + self.quadratic_per_w * it_power_w) * it_power_w


class Rack(msgspec.Struct, frozen=True):
    """A rack: its zone id `hall/row/rack`, the type of its nodes and their names."""

    zone: str
    node_type: str
    nodes: tuple[str, ...]
    power_limit_w: float | None = None


class RackRow(msgspec.Struct, frozen=True):
    """A row of racks: its zone id `hall/row`."""

    zone: str
    racks: tuple[Rack, ...]
    power_limit_w: float | None = None


class Hall(msgspec.Struct, frozen=True):
    """A hall: its zone id is its name. A plant of an unknown kind raises ValueError."""

    zone: str
    rows: tuple[RackRow, ...]
    plants: tuple[Plant, ...]
    losses: Losses
    power_limit_w: float | None = None

    def __post_init__(self) -> None:
        """Refuse a plant of an unknown kind."""
        for plant in self.plants:
            kind_of(plant)

    def racks(self) -> Iterator[Rack]:
        """Yield the hall's racks in order."""
        for row in self.rows:
            yield from row.racks


class Feed(msgspec.Struct, frozen=True):
    """An electrical feed that carries halls, rows or racks (zone ids) and may hang under another feed."""

    zone: str
    members: tuple[str, ...]
    power_limit_w: float
    parent: str | None = None


class Block(msgspec.Struct, frozen=True):
    """Nodes that belong together at a level, such as those of one NVLink domain; `nodes` is a host list."""

    name: str
    nodes: str


class BlockLevel(msgspec.Struct, frozen=True):
    """A level of blocks, of which no node is in two; a node in none cannot run a job that must stay within one.

    `label` is the key of the Kubernetes node label that tells the blocks apart, where there is one.
    """

    name: str
    blocks: tuple[Block, ...]
    label: str = ""


class Site(msgspec.Struct, frozen=True, dict=True):
    """A whole site. `budgets[zone]` are time-varying limits in W that hold beside the constant ones.

    The site's own zone id is its name. `budgets` holds the grid budget, curtailments and maintenance. The ramps say how
    fast its power at the meter may rise and fall, in W per s, where there is a limit.
    `powerhall.site.index.SiteIndex` looks up nodes, zones, modes and limits; `dict=True` lets a site keep its index.
    """

    name: str
    halls: tuple[Hall, ...]
    node_types: dict[str, NodeType]
    job_classes: dict[str, JobClass] = {}
    feeds: tuple[Feed, ...] = ()
    power_limit_w: float | None = None
    budgets: dict[str, Series] = {}
    storages: tuple[Storage, ...] = ()
    ramp_up_w_per_s: float | None = None
    ramp_down_w_per_s: float | None = None
    levels: tuple[BlockLevel, ...] = ()
    """Levels of blocks beside `rack`, `row` and `hall`, which every site has."""
    meters: dict[str, tuple[str, ...]] = {}
    """Devices of the gateway that together meter the IT power of a hall or rack, by zone."""

    def racks(self) -> Iterator[Rack]:
        """Yield all racks in order."""
        for hall in self.halls:
            yield from hall.racks()

    def zones(self) -> Iterator[str]:
        """Yield every zone id: the site, feeds, halls, rows, racks."""
        yield self.name
        yield from (feed.zone for feed in self.feeds)
        for hall in self.halls:
            yield hall.zone
            for row in hall.rows:
                yield row.zone
                yield from (rack.zone for rack in row.racks)

    def hall(self, zone: str) -> Hall:
        """Return the hall of this name; KeyError when there is none."""
        for hall in self.halls:
            if hall.zone == zone:
                return hall
        raise KeyError(zone)
