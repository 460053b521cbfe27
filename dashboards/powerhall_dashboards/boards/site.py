"""Site overview: is the site within its power and cooling budgets, and what are its GPUs doing?"""

from powerhall.store import Select
from powerhall_dashboards.boards.parts import (
    SHARE_OF_BUDGET,
    SITE,
    ZERO_IS_GOOD,
    chosen,
    columns,
    events,
    series,
    stat,
    table,
)
from powerhall_dashboards.model import Board, Link, Panel, Step

__all__ = ["SITE_BOARD"]

_HERE = chosen("site")
_COARSE_S = 300.0
_MONTH_S = 30 * 86_400


_STATS = (
    stat(
        "Power at the meter",
        "IT power, cooling and losses of the whole site, now.",
        series("site_10s", columns("mean", facility="facility_power_w"), _HERE),
    ),
    stat("Budget", "The power budget in force now.", series("site_10s", columns("min", budget="budget_w"), _HERE)),
    stat(
        "Headroom",
        "What is left of the budget, in percent. Below 0 the site is over its budget.",
        series("site_10s", (Select("headroom_w", "mean", "headroom", per="budget_w", scale=100.0),), _HERE),
        steps=SHARE_OF_BUDGET,
    ),
    stat(
        "PUE",
        "Power at the meter per IT power.",
        series("site_10s", (Select("facility_power_w", "mean", "pue", per="it_power_w"),), _HERE),
        steps=(Step(None, "good"), Step(1.3, "warning"), Step(1.6, "critical")),
    ),
    stat("GPUs busy", "GPUs with utilization above 5 %.", series("site_10s", columns("last", busy="gpus_busy"), _HERE)),
    stat(
        "GPUs throttled",
        "GPUs that power or heat slows down now.",
        series("site_10s", columns("last", throttled="gpus_throttled"), _HERE),
        steps=ZERO_IS_GOOD,
    ),
    stat(
        "GPUs lost",
        "GPUs that do not answer their driver.",
        series("site_10s", columns("last", lost="gpus_lost"), _HERE),
        steps=(Step(None, "good"), Step(1.0, "critical")),
    ),
    stat(
        "Stale nodes",
        "Nodes without fresh telemetry; they count at their worst case.",
        series("site_10s", columns("last", stale="nodes_stale"), _HERE),
        steps=ZERO_IS_GOOD,
    ),
)

_POWER = Panel(
    "Power against budget",
    "IT, cooling and losses stacked; the budget in force above them, and what the plan in force foresees.",
    "timeseries",
    (
        series("site_10s", columns("mean", it="it_power_w", cooling="cooling_power_w", losses="loss_power_w"), _HERE),
        series("site_10s", columns("min", budget="budget_w"), _HERE),
        series("site_10s", columns("mean", planned="planned_w"), _HERE),
    ),
    14,
    10,
    stack=("it", "cooling", "losses"),
)

_HALLS = Panel(
    "Halls now",
    "The newest roll-up of each hall; click a hall to see it against its budget.",
    "table",
    (
        table(
            "hall_10s",
            {
                "it": "it_power_w",
                "budget": "budget_w",
                "headroom": "headroom_w",
                "hottest": "temp_max_c",
                "throttled": "gpus_throttled",
                "lost": "gpus_lost",
                "stale": "nodes_stale",
            },
            _HERE,
            ("hall",),
        ),
    ),
    10,
    10,
    links=(Link("hall", "powerhall-hall", ("hall",)),),
    recent_s=300,
    hide=("Time",),
)

SITE_BOARD = Board(
    "powerhall-site",
    "Site overview",
    "Is the site within its power and cooling budgets, and what are its GPUs doing?",
    (SITE,),
    (
        ("Now", _STATS),
        ("Power", (_POWER, _HALLS)),
        (
            "Halls",
            (
                Panel(
                    "IT power by hall",
                    "Each hall's IT power, stacked.",
                    "timeseries",
                    (series("hall_10s", columns("mean", it="it_power_w"), _HERE, ("hall",)),),
                    8,
                    stack=("it",),
                ),
                Panel(
                    "Headroom by hall",
                    "What is left of each hall's budget; below 0 the hall is over it.",
                    "timeseries",
                    (series("hall_10s", columns("min", headroom="headroom_w"), _HERE, ("hall",)),),
                    8,
                ),
                Panel(
                    "Hottest GPU by hall",
                    "The highest GPU temperature in each hall.",
                    "heatmap",
                    (series("hall_10s", columns("max", hottest="temp_max_c"), _HERE, ("hall",)),),
                    8,
                ),
            ),
        ),
        (
            "Work",
            (
                Panel(
                    "GPUs by state",
                    "How many GPUs are busy, slowed down, or gone.",
                    "timeseries",
                    (
                        series(
                            "site_10s",
                            columns("mean", busy="gpus_busy", throttled="gpus_throttled", lost="gpus_lost"),
                            _HERE,
                        ),
                    ),
                    8,
                ),
                Panel(
                    "Outdoor air",
                    "Wet bulb and dry bulb: what the cooling plants work against.",
                    "timeseries",
                    (
                        series(
                            "weather",
                            columns("mean", wet_bulb="wet_bulb_c", dry_bulb="dry_bulb_c"),
                            _HERE,
                            every_s=300.0,
                        ),
                    ),
                    8,
                ),
                Panel(
                    "Newest events",
                    "Curtailments, XID errors, lost GPUs and other warnings, newest first.",
                    "table",
                    (events("site"),),
                    8,
                    sort="Time",
                    limit=20,
                ),
            ),
        ),
        (
            "Thirty days",
            (
                Panel(
                    "Power against budget, thirty days",
                    "Power at the meter in means of five minutes or longer, and the least budget in force.",
                    "timeseries",
                    (
                        series("site_5m", columns("mean", facility="facility_power_w"), _HERE, every_s=_COARSE_S),
                        series("site_5m", columns("min", budget="budget_w"), _HERE, every_s=_COARSE_S),
                    ),
                    12,
                    recent_s=_MONTH_S,
                ),
                Panel(
                    "Least headroom by hall, thirty days",
                    "The least that was left of each hall's budget; below 0 the hall was over it.",
                    "timeseries",
                    (series("hall_5m", columns("min", headroom="headroom_w"), _HERE, ("hall",), every_s=_COARSE_S),),
                    12,
                    recent_s=_MONTH_S,
                ),
            ),
        ),
    ),
)
