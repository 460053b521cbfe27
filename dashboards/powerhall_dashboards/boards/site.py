"""Site overview: is the site within its power and cooling budgets, and what are its GPUs doing?"""

from powerhall.store import Select, Variable
from powerhall_dashboards.boards.parts import (
    HEAT_SCALE,
    HIGH_IS_BAD,
    SHARE_OF_BUDGET,
    SITE,
    TEMPERATURE,
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
        "GPUs held down",
        "GPUs whose clocks a power cap or heat holds down now; the caps that a plan sets count.",
        series("site_10s", columns("last", held_down="gpus_throttled"), _HERE),
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
    stat(
        "Fullest cooling",
        "Heat per capacity of the most loaded medium, liquid or air, of any hall: at 100 % nothing more fits.",
        extreme("hall_10s", "max", Select("cooling_load_percent", "mean", "used"), _HERE, "hall"),
        steps=HIGH_IS_BAD,
        width=6,
    ),
    stat(
        "Least headroom of a hall",
        "What is left of the budget of the hall that is nearest to it.",
        extreme(
            "hall_10s", "min", Select("headroom_w", "mean", "headroom", per="budget_w", scale=100.0), _HERE, "hall"
        ),
        steps=SHARE_OF_BUDGET,
        width=6,
    ),
    stat(
        "Jobs waiting",
        "Jobs that the newest plan leaves waiting; why, and what would start them, is under Optimizer.",
        series("plan", columns("last", waiting="jobs_waiting"), _HERE, every_s=_COARSE_S),
        width=6,
    ),
    stat(
        "Plan's gap",
        "How far the plan may at most be from the best one.",
        series("plan", (Select("gap", "last", "gap", scale=100.0),), _HERE, every_s=_COARSE_S),
        width=6,
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
                "held_down": "gpus_throttled",
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

_AHEAD_S = 7200

_NEXT = (
    Panel(
        "The next two hours",
        "Planned power at the meter and the budget of each hour to come, as steps: a curtailment shows as a fall.",
        "timeseries",
        (
            series(
                "plan_zone",
                columns("max", planned="planned_w", budget="budget_w"),
                {"site": Variable("site"), "zone": Variable("site")},
                every_s=_COARSE_S,
            ),
        ),
        9,
        7,
        recent_s=_AHEAD_S,
        future=True,
    ),
    Panel(
        "Headroom of halls ahead",
        "Budget less planned power of each hall over the next two hours; the lowest line is the tightest place.",
        "timeseries",
        (halls_ahead("min", headroom="headroom_w"),),
        7,
        7,
        recent_s=_AHEAD_S,
        future=True,
    ),
    Panel(
        "Alarms of Powerhall",
        "The newest state of every alarm that Powerhall itself raises; those that stand come first.",
        "table",
        (table("alert", {"active": "active", "detail": "detail"}, _HERE, ("zone", "kind")),),
        8,
        7,
        sort="active",
        limit=20,
    ),
)

SITE_BOARD = Board(
    "powerhall-site",
    "Site overview",
    "Is the site within its power and cooling budgets, and what are its GPUs doing?",
    (SITE,),
    (
        ("Now", _STATS),
        ("Next", _NEXT),
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
                    "The highest GPU temperature in each hall; amber from 80, red from 87 degC.",
                    "heatmap",
                    (series("hall_10s", columns("max", hottest="temp_max_c"), _HERE, ("hall",)),),
                    8,
                    steps=TEMPERATURE,
                    scale=HEAT_SCALE,
                ),
            ),
        ),
        (
            "Work",
            (
                Panel(
                    "GPUs by state",
                    "How many GPUs are busy, held down by a cap or heat, or gone.",
                    "timeseries",
                    (
                        series(
                            "site_10s",
                            columns("mean", busy="gpus_busy", held_down="gpus_throttled", lost="gpus_lost"),
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
