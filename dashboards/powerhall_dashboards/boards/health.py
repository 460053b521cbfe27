"""Health and alerts: do agents deliver, is anything dropped or stale, and which GPUs are failing?"""

from powerhall.store import Filter
from powerhall_dashboards.boards.parts import (
    GPU_ERRORS,
    HALL,
    SITE,
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

__all__ = ["HEALTH_BOARD"]

_HERE = chosen("site", "hall")
_TO_NODE = (Link("node", "powerhall-node", ("hall", "rack", "node")),)
_AT = ("hall", "rack", "node")

_STATS = (
    stat(
        "Worst delivery lag",
        "Age of the newest point that the store acknowledged, of the agent that lags most.",
        series("agent", columns("max", lag="lag_s"), _HERE),
        steps=(Step(None, "good"), Step(30.0, "warning"), Step(120.0, "critical")),
        width=6,
    ),
    stat(
        "Largest spool",
        "Bytes waiting on disk at the agent with the largest spool.",
        series("agent", columns("max", spool="spool_bytes"), _HERE),
        width=6,
    ),
    stat(
        "Dropped points",
        "Points dropped because a spool was full, of the agent that dropped most.",
        series("agent", columns("max", dropped="dropped_points"), _HERE),
        steps=ZERO_IS_GOOD,
        width=6,
    ),
    stat(
        "Stale nodes",
        "Nodes without fresh telemetry.",
        series("hall_10s", columns("max", stale="nodes_stale"), _HERE),
        steps=ZERO_IS_GOOD,
        width=6,
    ),
)

HEALTH_BOARD = Board(
    "powerhall-health",
    "Health and alerts",
    "Do agents deliver, is anything dropped or stale, and which GPUs are failing?",
    (SITE, HALL),
    (
        ("Now", _STATS),
        (
            "Alarms",
            (
                Panel(
                    "Alarms of Powerhall",
                    "The newest state of every alarm that Powerhall itself raises; active is 1 while it stands.",
                    "table",
                    (table("alert", {"active": "active", "detail": "detail"}, chosen("site"), ("zone", "kind")),),
                    12,
                    9,
                    sort="active",
                    limit=50,
                ),
                Panel(
                    "Errors of GPUs",
                    "XID errors, memory errors and lost GPUs, newest first.",
                    "table",
                    (events("site", "hall", kinds=GPU_ERRORS),),
                    12,
                    9,
                    links=(Link("node", "powerhall-node", ("hall", "node")),),
                    sort="Time",
                    limit=50,
                ),
            ),
        ),
        (
            "Agents",
            (
                Panel(
                    "Delivery lag",
                    "The agent of each hall that lags most.",
                    "timeseries",
                    (series("agent", columns("max", lag="lag_s"), _HERE, ("hall",)),),
                    8,
                ),
                Panel(
                    "Spools",
                    "The largest spool of each hall.",
                    "timeseries",
                    (series("agent", columns("max", spool="spool_bytes"), _HERE, ("hall",)),),
                    8,
                ),
                Panel(
                    "Cost of the agents",
                    "CPU of one core that the busiest agent of each hall uses.",
                    "timeseries",
                    (series("agent", columns("max", cpu="cpu_percent"), _HERE, ("hall",)),),
                    8,
                ),
                Panel(
                    "Agents",
                    "The newest report of each agent, longest lag first; click a node for its page.",
                    "table",
                    (
                        table(
                            "agent",
                            {
                                "lag": "lag_s",
                                "spool": "spool_bytes",
                                "dropped": "dropped_points",
                                "rejected": "rejected_points",
                                "retries": "retries",
                                "missed": "ticks_missed",
                                "cpu": "cpu_percent",
                                "memory": "rss_bytes",
                            },
                            _HERE,
                            _AT,
                        ),
                    ),
                    24,
                    9,
                    links=_TO_NODE,
                    recent_s=900,
                    sort="lag",
                    limit=50,
                ),
            ),
        ),
        (
            "Cappers",
            (
                Panel(
                    "Cappers",
                    "Whether a lease is in force on each node, why not, and what needs a person; most alarms first.",
                    "table",
                    (
                        table(
                            "capper",
                            {
                                "alarms": "alarms",
                                "leased": "leased",
                                "reason": "reason",
                                "detail": "detail",
                                "up": "up",
                            },
                            {},
                            ("node",),
                        ),
                    ),
                    24,
                    9,
                    links=(Link("node", "powerhall-node", ("node",)),),
                    recent_s=180,
                    sort="alarms",
                    limit=50,
                ),
            ),
        ),
        (
            "Sensors",
            (
                Panel(
                    "Failing collectors",
                    "Collectors whose newest run failed, and why.",
                    "table",
                    (
                        table(
                            "collector",
                            {"success": "success", "detail": "detail"},
                            _HERE,
                            (*_AT, "collector"),
                            filters=(Filter("success", "=", 0.0),),
                        ),
                    ),
                    12,
                    links=_TO_NODE,
                    recent_s=300,
                    sort="Time",
                    limit=50,
                ),
                Panel(
                    "Sensors with implausible readings",
                    "Readings that were dropped since the agent's start, and whether the sensor is still believed.",
                    "table",
                    (
                        table(
                            "sensor",
                            {"suspect": "suspect", "dropped": "dropped_readings", "reason": "reason"},
                            _HERE,
                            (*_AT, "gpu", "sensor"),
                        ),
                    ),
                    12,
                    links=_TO_NODE,
                    recent_s=300,
                    sort="dropped",
                    limit=50,
                ),
                rests_on("site_10s", chosen("site"), 12),
                Panel(
                    "GPUs that do not answer",
                    "GPUs that were quarantined in the last minutes, and why.",
                    "table",
                    (
                        table(
                            "gpu_state",
                            {"up": "up", "reason": "reason"},
                            _HERE,
                            (*_AT, "gpu"),
                            filters=(Filter("up", "=", 0.0),),
                        ),
                    ),
                    12,
                    links=_TO_NODE,
                    recent_s=300,
                    sort="Time",
                    limit=50,
                    hide=("up",),
                ),
            ),
        ),
    ),
)
