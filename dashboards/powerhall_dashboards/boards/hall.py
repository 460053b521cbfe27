"""Hall power against budget: how close is a hall to its limit, which racks draw it, and what was curtailed?"""

from powerhall.store import Query, Select
from powerhall_dashboards.boards.parts import (
    HALL,
    RACKS_SINCE_S,
    SHARE_OF_BUDGET,
    SITE,
    ZERO_IS_GOOD,
    chosen,
    columns,
    events,
    extreme,
    halls_ahead,
    series,
    stat,
    table,
)
from powerhall_dashboards.model import Board, Link, Panel

__all__ = ["HALL_BOARD"]

_HERE = chosen("site", "hall")


def _sum_of_halls(aggregate: str, name: str, field: str) -> Query:
    """Sum over the chosen halls of each hall's value."""
    inner = Query("hall_10s", (Select(field, aggregate, name),), _HERE, ("hall",), every_s=10.0)
    return Query("hall_10s", (Select(name, "sum", name),), every_s=10.0, inner=inner)


_STATS = (
    stat("IT power", "IT power of the chosen halls, now.", _sum_of_halls("mean", "it", "it_power_w")),
    stat("Budget", "Budget in force for the chosen halls.", _sum_of_halls("min", "budget", "budget_w")),
    stat(
        "Headroom",
        "What is left of the tightest chosen hall's budget, in percent.",
        extreme(
            "hall_10s", "min", Select("headroom_w", "mean", "headroom", per="budget_w", scale=100.0), _HERE, "hall"
        ),
        steps=SHARE_OF_BUDGET,
    ),
    stat(
        "GPUs throttled",
        "GPUs of the chosen halls that power or heat slows down now.",
        _sum_of_halls("last", "throttled", "gpus_throttled"),
        steps=ZERO_IS_GOOD,
    ),
    stat(
        "Stale nodes",
        "Nodes without fresh telemetry; they count at their worst case.",
        _sum_of_halls("last", "stale", "nodes_stale"),
        steps=ZERO_IS_GOOD,
    ),
    stat("GPUs busy", "GPUs with utilization above 5 %.", _sum_of_halls("last", "busy", "gpus_busy")),
)

_POWER = Panel(
    "IT power against budget",
    "IT power of the chosen halls, their budget, and what the plan in force foresees.",
    "timeseries",
    (
        _sum_of_halls("mean", "it", "it_power_w"),
        _sum_of_halls("min", "budget", "budget_w"),
        _sum_of_halls("mean", "planned", "planned_w"),
    ),
    14,
    10,
    stack=("it",),
)

_RACKS = Panel(
    "Racks with the most power",
    "The 20 racks that draw most now, with their budget and hottest GPU; click a rack for its nodes.",
    "table",
    (
        table(
            "rack_10s",
            {"it": "it_power_w", "budget": "budget_w", "headroom": "headroom_w", "hottest": "temp_max_c"},
            _HERE,
            ("hall", "rack"),
        ),
    ),
    10,
    10,
    links=(Link("rack", "powerhall-node", ("hall", "rack")),),
    recent_s=120,
    sort="it",
    limit=20,
    hide=("Time",),
)

HALL_BOARD = Board(
    "powerhall-hall",
    "Powerhall: Hall power against budget",
    "How close is a hall to its power limit, which racks draw it, and what was curtailed?",
    (SITE, HALL),
    (
        ("Now", tuple(Panel(p.title, p.text, p.kind, p.queries, 4, 4, steps=p.steps) for p in _STATS)),
        ("Power", (_POWER, _RACKS)),
        (
            "Racks and plan",
            (
                Panel(
                    "Rack power",
                    "IT power of each rack over the last three hours, in means of five minutes.",
                    "heatmap",
                    (series("rack_5m", columns("mean", it="it_power_w"), _HERE, ("rack",), every_s=300.0),),
                    12,
                    9,
                    recent_s=RACKS_SINCE_S,
                ),
                Panel(
                    "What the plan foresees",
                    "Planned power and budget per hall over the next 12 hours.",
                    "timeseries",
                    (halls_ahead("max", planned="planned_w", budget="budget_w"),),
                    12,
                    9,
                    recent_s=43_200,
                    future=True,
                ),
            ),
        ),
        (
            "Limits",
            (
                Panel(
                    "GPUs throttled",
                    "GPUs that power or heat slows down, per hall.",
                    "timeseries",
                    (series("hall_10s", columns("max", throttled="gpus_throttled"), _HERE, ("hall",)),),
                    8,
                ),
                Panel(
                    "Power-cap leases",
                    "The newest lease of each node: its cap, the cap it falls back to, and when it ends.",
                    "table",
                    (
                        table(
                            "lease",
                            {"cap": "cap_w", "safe_cap": "safe_cap_w", "expires": "expires_s"},
                            _HERE,
                            ("hall", "node"),
                        ),
                    ),
                    8,
                    recent_s=900,
                    sort="cap",
                    limit=50,
                ),
                Panel(
                    "Events of these halls",
                    "Curtailments, throttling and errors, newest first.",
                    "table",
                    (events("site"),),
                    8,
                    sort="Time",
                    limit=20,
                ),
            ),
        ),
    ),
)
