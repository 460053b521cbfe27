"""Queries and steps that several dashboards share."""

from powerhall.store import Filter, Query, Select, Variable
from powerhall.store.query import TagValue
from powerhall.store.schema import MEASUREMENTS
from powerhall_dashboards.model import WATT_HOURS, Choice, Panel, Step

__all__ = [
    "GPU",
    "GPU_ERRORS",
    "HALL",
    "HEAT_SCALE",
    "HIGH_IS_BAD",
    "JOB",
    "JOBS_SINCE_S",
    "MARKED",
    "NODE",
    "PLAN",
    "RACK",
    "RACKS_SINCE_S",
    "SHARE_OF_BUDGET",
    "SITE",
    "TEMPERATURE",
    "THIS_HALL",
    "ZERO_IS_GOOD",
    "chosen",
    "columns",
    "events",
    "extreme",
    "halls_ahead",
    "rests_on",
    "series",
    "stat",
    "table",
]

SITE = Choice("site", "site_10s", several=False)
HALL = Choice("hall", "hall_10s", ("site",))
THIS_HALL = Choice("hall", "hall_10s", ("site",), several=False)
RACK = Choice("rack", "rack_10s", ("site", "hall"))
NODE = Choice("node", "gpu_state", ("site", "hall", "rack"), several=False)
GPU = Choice("gpu", "gpu_state", ("site", "node"))
PLAN = Choice("plan", "plan", ("site",), several=False, is_field=True, newest=True, of="plan_id")
JOB = Choice("job", "job_interval", ("site",), several=False, is_field=True)

JOBS_SINCE_S = 7 * 86_400
"""Jobs are searched this far back: an interval is stored at its start, however long it lasts."""

RACKS_SINCE_S = 7200
"""Range of the heat maps of racks, which are many, whatever range is chosen."""

MARKED = (
    ("Curtailments", ("curtailment",), "#C2185B"),
    ("Plan changes", ("plan_change",), "#8F5BD6"),
    ("GPU errors", ("xid", "gpu_unavailable", "gpu_quarantined"), "#A61C2D"),
)
"""Events that are marked on every chart: their name, kinds and colour."""
GPU_ERRORS = (
    *("xid", "ecc_double_bit", "ecc_single_bit_storm", "dram_retirement", "dram_retirement_failure", "poison"),
    *(
        "poison_fatal",
        "gpu_unavailable",
        "gpu_quarantined",
        "recovery_action",
        "leak",
        "operational",
        "throttle_onset",
        "energy_closure",
    ),
    *("driver_missing", "driver_gone", "driver_stuck", "driver_unbind", "events_ended", "counter_reset"),
)
"""Kinds of events about faults of a GPU or its driver."""

ZERO_IS_GOOD = (Step(None, "good"), Step(1.0, "warning"))
SHARE_OF_BUDGET = (Step(None, "critical"), Step(0.0, "warning"), Step(5.0, "good"))
TEMPERATURE = (Step(None, "good"), Step(80.0, "warning"), Step(87.0, "critical"))
"""GPU temperatures in degC, as the stats and the alert of thermal slowdown see them."""
HEAT_SCALE = (30.0, 95.0)
"""Range of the colours of temperatures in degC."""
HIGH_IS_BAD = (Step(None, "good"), Step(85.0, "warning"), Step(95.0, "critical"))


def chosen(*names: str) -> dict[str, TagValue]:
    """Return conditions that tie these tags to the choices of the same name."""
    return {name: Variable(name) for name in names}


def columns(aggregate: str, **fields: str) -> tuple[Select, ...]:
    """Return columns: `columns("mean", it="it_power_w")`."""
    return tuple(Select(field, aggregate, name) for name, field in fields.items())


def series(
    measurement: str,
    select: tuple[Select, ...],
    where: dict[str, TagValue],
    group_by: tuple[str, ...] = (),
    *,
    every_s: float = 10.0,
) -> Query:
    """Return a query in time buckets."""
    return Query(measurement, select, where, group_by, every_s=every_s)


def rests_on(measurement: str, where: dict[str, TagValue], width: int) -> Panel:
    """Return the panel of what a roll-up's IT power rests on."""
    return Panel(
        "What IT power rests on",
        "Measured by BMCs and meters; estimated from GPUs; assumed at its worst where nothing plausible was read.",
        "timeseries",
        (
            series(
                measurement,
                columns("mean", measured="it_measured_w", estimated="it_estimated_w", assumed="it_assumed_w"),
                where,
            ),
        ),
        width,
        stack=("measured", "estimated", "assumed"),
    )


def table(
    measurement: str,
    fields: dict[str, str],
    where: dict[str, TagValue],
    group_by: tuple[str, ...],
    *,
    filters: tuple[Filter, ...] = (),
    limit: int = 1,
) -> Query:
    """Return the newest points of each group, as rows; `fields` maps column names to fields."""
    select = tuple(Select(field, "", name, scale=_shown_scale(measurement, field)) for name, field in fields.items())
    return Query(measurement, select, where, group_by, order="desc", limit=limit, filters=filters)


def _shown_scale(measurement: str, field: str) -> float:
    """Return the factor for a table: moments in ms as Grafana wants them, energies in Wh, the gap in percent."""
    stored = MEASUREMENTS[measurement].field(field)
    if stored.is_moment:
        return 1000.0
    return WATT_HOURS if stored.unit == "J" else 100.0 if field == "gap" else 1.0


def extreme(measurement: str, aggregate: str, column: Select, where: dict[str, TagValue], group: str) -> Query:
    """Return the largest or smallest over a tag's values of each one's column."""
    inner = Query(measurement, (column,), where, (group,), every_s=10.0)
    return Query(measurement, (Select(column.name, aggregate, column.name),), every_s=10.0, inner=inner)


def halls_ahead(aggregate: str, **fields: str) -> Query:
    """Return the planned figures per hall; the filter on heat, which only halls have, leaves out racks and feeds."""
    select = columns(aggregate, **fields)
    only_halls = (Filter("heat_w", ">=", 0.0),)
    return Query("plan_zone", select, chosen("site"), ("zone",), every_s=300.0, filters=only_halls)


def stat(title: str, text: str, query: Query, *, steps: tuple[Step, ...] = (), width: int = 3) -> Panel:
    """Return a panel of one number, the newest, over its course."""
    return Panel(title, text, "stat", (query,), width, 4, steps=steps)


def events(*tags: str, severity: float = 1.0, kinds: tuple[str, ...] = ()) -> Query:
    """Return the newest events of at least this severity (0, 1 warning, 2 critical), of some kinds or all."""
    of_kind: dict[str, TagValue] = {"kind": kinds} if kinds else {}
    fields = {"detail": "detail", "severity": "severity", "code": "code"}
    grave = (Filter("severity", ">=", severity),)
    return table("event", fields, chosen(*tags) | of_kind, ("kind", "hall", "node", "gpu"), filters=grave, limit=5)
