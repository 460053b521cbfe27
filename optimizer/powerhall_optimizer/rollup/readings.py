"""Readings of a hall's nodes and meters per bucket of ten seconds; a garbage point spoils no bucket."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from powerhall.site.topology import NodeType
from powerhall.store import Ask, Filter, Query, Row, Select
from powerhall.store.query import TagValue
from powerhall.store.schema import MEASUREMENTS

__all__ = ["BUCKET_S", "HallReadings", "NodeReading", "gpu_most_w", "node_most_w", "read_hall"]

BUCKET_S = 10
_BUSY_PERCENT = 5.0
_THROTTLED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""Software power cap, hardware slowdown, software and hardware thermal slowdown, power brake (NVML event reasons)."""
_POWER = (Select("power_w", "mean"), Select("power_w", "max", "most_w"), Select("power_w", "min", "least_w"))
_LISTED = Select("gpus", "max")
_ABOVE_RATED = 1.5
"""A reading above this multiple of what its device can draw is garbage; up to it the rating may be wrong."""


@dataclass(slots=True)
class NodeReading:
    """A node in one bucket: GPU powers, the BMC's power where there is one, the hottest GPU, GPUs by state."""

    gpu_power_w: list[float] = field(default_factory=list)
    power_w: float | None = None
    temp_max_c: float | None = None
    busy: int = 0
    throttled: int = 0
    lost: int = 0
    listed: int | None = None
    """GPUs that the driver lists, answering or not; None where the node does not say."""
    garbage: list[str] = field(default_factory=list)
    """Readings that nothing of this kind can show, in words; they are in no power."""


@dataclass(frozen=True, slots=True)
class HallReadings:
    """Readings of a hall by bucket: of its nodes by name, and `power_w` of its meters by device, in W."""

    nodes: Mapping[str, Mapping[int, NodeReading]]
    meters: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


def gpu_most_w(kind: NodeType) -> float:
    """Return the power in W above which a reading of a GPU of this node type is garbage."""
    limits_w = [mode.gpu_power_limit_w or mode.gpu_power_w for mode in kind.modes]
    return _ABOVE_RATED * max([kind.max_power_w / max(1, kind.gpus), *limits_w])


def node_most_w(kind: NodeType) -> float:
    """Return the power in W above which a reading of a node of this type is garbage."""
    return _ABOVE_RATED * kind.max_power_w


def read_hall(
    ask: Ask,
    where: Mapping[str, str],
    kinds: Mapping[str, NodeType],
    meters: Collection[str],
    span: tuple[int, int],
) -> HallReadings:
    """Return the readings of a hall over a span of seconds; `kinds` are the node types by node, `where` its tags."""
    nodes: dict[str, dict[int, NodeReading]] = defaultdict(lambda: defaultdict(NodeReading))
    states = (Select("temp_c", "max"), Select("util_percent", "mean"), Select("clocks_event_reasons", "last"))
    limits = {node: gpu_most_w(kind) for node, kind in kinds.items()}
    for row, power_w, garbage in _powers(ask, _asked("gpu", (*_POWER, *states), where), span, limits):
        reading, temp_c = nodes[row.tags["node"]][int(row.time_s)], row.number("temp_c")
        if power_w is not None:
            reading.gpu_power_w.append(power_w)
        if garbage:
            reading.garbage.append(f"GPU {row.tags['gpu']} shows {garbage}")
        if temp_c is not None:
            reading.temp_max_c = max(temp_c, reading.temp_max_c or temp_c)
        reading.busy += (row.number("util_percent") or 0.0) > _BUSY_PERCENT
        reading.throttled += bool(int(row.number("clocks_event_reasons") or 0) & _THROTTLED)
    query = Query("gpu_state", (Select("up", "min"),), where, ("node", "gpu"), every_s=float(BUCKET_S))
    for row in ask(query, *span):
        nodes[row.tags["node"]][int(row.time_s)].lost += (row.number("up") or 0.0) < 1.0
    limits = {node: node_most_w(kind) for node, kind in kinds.items()}
    for row, power_w, garbage in _powers(ask, _asked("node", (*_POWER, _LISTED), where), span, limits):
        reading = nodes[row.tags["node"]][int(row.time_s)]
        listed = row.number("gpus")
        reading.power_w, reading.listed = power_w, None if listed is None else int(listed)
        if garbage:
            reading.garbage.append(f"the BMC shows {garbage}")
    return HallReadings(nodes, _meters(ask, where["site"], meters, span))


def _meters(ask: Ask, site: str, devices: Collection[str], span: tuple[int, int]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    if devices:
        where: dict[str, TagValue] = {"site": site, "device": tuple(sorted(devices)), "point": "power_w"}
        query = Query("facility", (Select("value", "mean"),), where, ("device",), every_s=float(BUCKET_S))
        for row in ask(query, *span):
            power_w = row.number("value")
            if power_w is not None:
                found[row.tags["device"]][int(row.time_s)] = power_w
    return found


def _asked(measurement: str, select: tuple[Select, ...], where: Mapping[str, str]) -> Query:
    tags = tuple(tag for tag in ("node", "gpu") if tag in MEASUREMENTS[measurement].tags)
    return Query(measurement, select, where, tags, every_s=float(BUCKET_S))


def _powers(
    ask: Ask, asked: Query, span: tuple[int, int], most_w: Mapping[str, float]
) -> Iterator[tuple[Row, float | None, str]]:
    """Yield a query's buckets with the mean of the points of `power_w` that are no garbage, and what garbage shows.

    The extremes tell whether there is garbage at all; only then are the good points asked for apart.
    """
    rows = [(row, _garbage(row, most_w)) for row in ask(asked, *span)]
    good: dict[tuple[str, str, int], float | None] = {}
    for limit_w in {most_w[row.tags["node"]] for row, garbage in rows if garbage}:
        bounds = (Filter("power_w", ">=", 0.0), Filter("power_w", "<=", limit_w))
        for row in ask(replace(asked, select=_POWER[:1], filters=bounds), *span):
            if most_w.get(row.tags["node"]) == limit_w:
                good[_key(row)] = row.number("power_w")
    for row, garbage in rows:
        yield row, good.get(_key(row)) if garbage else row.number("power_w"), garbage


def _key(row: Row) -> tuple[str, str, int]:
    return row.tags["node"], row.tags.get("gpu", ""), int(row.time_s)


def _garbage(row: Row, most_w: Mapping[str, float]) -> str:
    """Return the power that nothing of this kind can draw, in words; "" where the row has none."""
    limit_w, most, least = most_w.get(row.tags["node"]), row.number("most_w"), row.number("least_w")
    if limit_w is None or most is None or least is None or 0.0 <= least <= most <= limit_w:
        return ""
    return f"{least if least < 0.0 else most:,.0f} W"
