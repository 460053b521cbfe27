"""Optimizer: what was planned and why, how good is it proven to be, does the site follow it, and who waits?"""

from powerhall.store import Filter, Query, Select, Variable
from powerhall_dashboards.boards.parts import PLAN, SITE, chosen, columns, halls_ahead, series, stat, table
from powerhall_dashboards.model import Board, Link, Panel, Step

__all__ = ["OPTIMIZER_BOARD"]

_HERE = chosen("site")
_ROUND_S = 300.0
_AHEAD_S = 43_200
_PLAN_S = 3600
"""The newest plan is looked for this far back."""
_NEWEST = Filter("plan_id", "=", Variable("plan"))


def _plan(aggregate: str, **fields: str) -> Query:
    return series("plan", columns(aggregate, **fields), _HERE, every_s=_ROUND_S)


_SITE_AHEAD = series(
    "plan_zone",
    columns("min", headroom="headroom_w"),
    {"site": Variable("site"), "zone": Variable("site")},
    ("zone",),
    every_s=_ROUND_S,
)
_PRICES = Query(
    "plan_zone",
    columns("max", price="price_per_mw"),
    _HERE,
    ("zone",),
    every_s=_ROUND_S,
    filters=(Filter("price_per_mw", ">", 0.0),),
)

_STORED = series(
    "plan_storage",
    (Select("soc_percent", "last", "content"),),
    _HERE,
    ("storage",),
    every_s=_ROUND_S,
)
_STORAGE_POWER = series("plan_storage", columns("mean", delivered="power_w"), _HERE, ("storage",), every_s=_ROUND_S)

_STATS = (
    Panel(
        "Plan age",
        "Time since the plan in force was published. More than two rounds is an alarm.",
        "age",
        (table("plan", {"value": "value"}, _HERE, ()),),
        4,
        4,
        steps=(Step(None, "good"), Step(600.0, "warning"), Step(900.0, "critical")),
    ),
    Panel(
        "Verified",
        "Whether the independent checker passed the plan.",
        "stat",
        (_plan("last", verified="verified"),),
        4,
        4,
        steps=(Step(None, "critical"), Step(1.0, "good")),
    ),
    stat(
        "Gap",
        "How far the plan may at most be from the best one: bound less value, over bound.",
        series("plan", (Select("gap", "last", "gap", scale=100.0),), _HERE, every_s=_ROUND_S),
        width=4,
    ),
    stat("Time to solve", "How long the newest round took to solve.", _plan("last", solve="solve_s"), width=4),
    stat("Jobs waiting", "Jobs that the plan leaves waiting.", _plan("last", waiting="jobs_waiting"), width=4),
    stat(
        "Stale telemetry",
        "Share of nodes without fresh telemetry when the plan was made. Above 20 % no cap is raised.",
        series("plan", (Select("stale_share", "last", "stale", scale=100.0),), _HERE, every_s=_ROUND_S),
        steps=(Step(None, "good"), Step(5.0, "warning"), Step(20.0, "critical")),
        width=4,
    ),
)

_ACTUAL = Panel(
    "Planned against actual power",
    "Power at the meter as measured, as the plan in force foresaw it, and the budget.",
    "timeseries",
    (
        series("site_10s", columns("mean", facility="facility_power_w", planned="planned_w"), _HERE),
        series("site_10s", columns("min", budget="budget_w"), _HERE),
    ),
    12,
    9,
)

_GANTT = Panel(
    "The plan",
    "Which job runs when, in the halls' widest lanes, over the next 12 hours.",
    "timeline",
    (series("plan_slot", columns("last", job="job"), _HERE, ("hall", "lane"), every_s=_ROUND_S),),
    24,
    12,
    recent_s=_AHEAD_S,
    future=True,
)

_WAITING = Panel(
    "Waiting jobs and why",
    "Each job that the newest plan leaves waiting, what holds it back, and what would start it, in numbers.",
    "table",
    (
        table(
            "plan_job",
            {
                "job": "job",
                "gpus": "gpus",
                "weight": "weight",
                "reason": "reason",
                "what_if": "what_if",
            },
            _HERE,
            ("row",),
            filters=(Filter("state", "=", "waiting"), _NEWEST),
        ),
    ),
    24,
    10,
    links=(Link("job", "powerhall-job", ("job",)),),
    recent_s=_PLAN_S,
    sort="weight",
    limit=100,
    hide=("row",),
)

_RUNNING = Panel(
    "Planned jobs",
    "Jobs that run or start within the horizon: where, in which power mode, and from when to when.",
    "table",
    (
        table(
            "plan_job",
            {
                "job": "job",
                "state": "state",
                "where": "hall",
                "mode": "mode",
                "gpus": "gpus",
                "power": "power_w",
                "start": "start_s",
                "end": "end_s",
                "reason": "reason",
            },
            _HERE,
            ("row",),
            filters=(Filter("state", "!=", "waiting"), _NEWEST),
        ),
    ),
    24,
    10,
    links=(Link("job", "powerhall-job", ("job",)),),
    recent_s=_PLAN_S,
    sort="power",
    limit=100,
    hide=("row",),
)

_LEASES = Panel(
    "Leases of the newest rounds",
    "What each grant gave, how far the planner's clock was ahead, and nodes that count at their highest or are silent.",
    "table",
    (
        table(
            "lease_round",
            {
                "leases": "leases",
                "cap": "cap_w",
                "clock_ahead": "clock_ahead_s",
                "unknown": "unknown",
                "unconfirmed": "unconfirmed",
                "silent": "silent",
                "refused": "refused",
            },
            _HERE,
            (),
            limit=20,
        ),
    ),
    24,
    sort="Time",
)

OPTIMIZER_BOARD = Board(
    "powerhall-optimizer",
    "Optimizer",
    "What was planned and why, how good is it proven to be, does the site follow it, and who waits?",
    (SITE, PLAN),
    (
        ("Now", _STATS),
        ("The plan", (_GANTT,)),
        ("Jobs", (_WAITING, _RUNNING)),
        (
            "Power",
            (
                _ACTUAL,
                Panel(
                    "Headroom ahead",
                    "Budget less planned power of the site and each hall over the next 12 hours.",
                    "timeseries",
                    (_SITE_AHEAD, halls_ahead("min", headroom="headroom_w")),
                    12,
                    9,
                    recent_s=_AHEAD_S,
                    future=True,
                ),
            ),
        ),
        (
            "Stores",
            (
                Panel(
                    "Batteries, tanks and loops: power ahead",
                    "What the plan has each store deliver over the next 12 hours; negative while it charges.",
                    "timeseries",
                    (_STORAGE_POWER,),
                    12,
                    recent_s=_AHEAD_S,
                    future=True,
                ),
                Panel(
                    "Batteries, tanks and loops: content ahead",
                    "What each store will hold over the next 12 hours, in percent of its capacity.",
                    "timeseries",
                    (_STORED,),
                    12,
                    recent_s=_AHEAD_S,
                    future=True,
                ),
            ),
        ),
        (
            "Quality",
            (
                Panel(
                    "Value and bound",
                    "Weighted work that each plan delivers, and the proven upper bound of any plan.",
                    "timeseries",
                    (_plan("last", value="value", bound="bound"),),
                    8,
                ),
                Panel(
                    "What one more megawatt is worth",
                    "Price of power per zone over the next 12 hours; where it is above 0, power holds work back.",
                    "timeseries",
                    (_PRICES,),
                    8,
                    recent_s=_AHEAD_S,
                    future=True,
                ),
                Panel(
                    "Jobs per round",
                    "Jobs that each plan keeps running, starts, and leaves waiting.",
                    "timeseries",
                    (_plan("last", running="jobs_running", started="jobs_started", waiting="jobs_waiting"),),
                    8,
                ),
                Panel(
                    "Newest plans",
                    "The newest rounds: status, value, gap and cost.",
                    "table",
                    (
                        table(
                            "plan",
                            {
                                "status": "status",
                                "verified": "verified",
                                "value": "value",
                                "gap": "gap",
                                "solve": "solve_s",
                                "energy": "energy_j",
                                "cost": "cost",
                            },
                            _HERE,
                            (),
                            limit=20,
                        ),
                    ),
                    24,
                    sort="Time",
                ),
                _LEASES,
            ),
        ),
    ),
)
