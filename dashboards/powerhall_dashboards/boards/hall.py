"""Hall power against budget: how close is a hall to its limit, which racks draw it, and what was curtailed?"""

from powerhall.store import Query, Select, Variable
from powerhall_dashboards.boards.parts import (
    HEAT_SCALE,
    RACKS_SINCE_S,
    SHARE_OF_BUDGET,
    SITE,
    TEMPERATURE,
    THIS_HALL,
    ZERO_IS_GOOD,
    chosen,
    columns,
    events,
    rests_on,
    series,
    stat,
    table,
)
from powerhall_dashboards.model import Board, Link, Panel, Step

__all__ = ["HALL_BOARD"]

_HERE = chosen("site", "hall")


def _hall(aggregate: str, **fields: str) -> Query:
    return series("hall_10s", columns(aggregate, **fields), _HERE)


_STATS = (
    stat("IT power", "IT power of the hall, now.", _hall("mean", it="it_power_w")),
    stat("Budget", "Budget in force for the hall.", _hall("min", budget="budget_w")),
    stat(
        "Headroom",
        "What is left of the hall's budget, in percent. Below 0 it is over it.",
        series("hall_10s", (Select("headroom_w", "mean", "headroom", per="budget_w", scale=100.0),), _HERE),
        steps=SHARE_OF_BUDGET,
    ),
    stat(
        "GPUs held down",
        "GPUs of the hall whose clocks a power cap or heat holds down now; the caps that a plan sets count.",
        _hall("last", held_down="gpus_throttled"),
    ),
    stat(
        "Stale nodes",
        "Nodes without fresh telemetry; they count at their worst case.",
        _hall("last", stale="nodes_stale"),
        steps=ZERO_IS_GOOD,
    ),
    stat("GPUs busy", "GPUs with utilization above 5 %.", _hall("last", busy="gpus_busy")),
)

_POWER = Panel(
    "IT power against budget",
    "IT power of the hall, its budget, and what the plan in force foresees.",
    "timeseries",
    (
        _hall("mean", it="it_power_w"),
        _hall("min", budget="budget_w"),
        _hall("mean", planned="planned_w"),
    ),
    14,
    10,
    stack=("it",),
)

_AHEAD = series(
    "plan_zone",
    columns("max", planned="planned_w", budget="budget_w"),
    {"site": Variable("site"), "zone": Variable("hall")},
    every_s=300.0,
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
    "Hall power against budget",
    "How close is a hall to its power limit, which racks draw it, and what was curtailed?",
    (SITE, THIS_HALL),
    (
        ("Now", tuple(Panel(p.title, p.text, p.kind, p.queries, 4, 4, steps=p.steps) for p in _STATS)),
        ("Power", (_POWER, _RACKS)),
        (
            "Racks and plan",
            (
                Panel(
                    "Rack power of its limit",
                    "IT power of each rack in percent of its own limit, over the last two hours, in means of five "
                    "minutes: amber from 95 %, red beyond. Racks without a limit are in the table above.",
                    "heatmap",
                    (
                        series(
                            "rack_5m",
                            (Select("it_power_w", "mean", "used", per="budget_w", scale=100.0),),
                            _HERE,
                            ("rack",),
                            every_s=300.0,
                        ),
                    ),
                    12,
                    9,
                    steps=(Step(None, "good"), Step(95.0, "warning"), Step(100.0, "critical")),
                    scale=(0.0, 105.0),
                    recent_s=RACKS_SINCE_S,
                ),
                Panel(
                    "Hottest GPU by rack",
                    "The highest GPU temperature of each rack over two hours: amber from 80, red from 87 degC.",
                    "heatmap",
                    (series("rack_5m", columns("max", hottest="temp_max_c"), _HERE, ("rack",), every_s=300.0),),
                    12,
                    9,
                    steps=TEMPERATURE,
                    scale=HEAT_SCALE,
                    recent_s=RACKS_SINCE_S,
                ),
                Panel(
                    "What the plan foresees",
                    "Planned power of the hall and its budget over the next 12 hours.",
                    "timeseries",
                    (_AHEAD,),
                    24,
                    7,
                    recent_s=43_200,
                    future=True,
                ),
            ),
        ),
        (
            "Limits",
            (
                Panel(
                    "GPUs held down",
                    "GPUs of the hall whose clocks a power cap or heat holds down.",
                    "timeseries",
                    (_hall("max", held_down="gpus_throttled"),),
                    12,
                ),
                rests_on("hall_10s", _HERE, 12),
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
                    12,
                    recent_s=900,
                    sort="cap",
                    limit=50,
                ),
                Panel(
                    "Events of the site",
                    "Curtailments, throttling and errors, newest first.",
                    "table",
                    (events("site"),),
                    12,
                    sort="Time",
                    limit=20,
                ),
            ),
        ),
    ),
)
