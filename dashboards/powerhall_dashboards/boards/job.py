"""Job: where does a job run, what does it draw, how well does it use its GPUs, and what slowed it down?"""

from powerhall.store import Filter, Query, Select, Variable
from powerhall_dashboards.boards.parts import JOB, JOBS_SINCE_S, SITE, chosen, columns, series, table
from powerhall_dashboards.model import WATT_HOURS, Board, Choice, Link, Panel

__all__ = ["JOB_BOARD"]

_THIS = (Filter("job", "=", Variable("job")),)
_NODES = Choice("node", "job_interval", ("site", "job"))
_GPUS = chosen("site", "node")
_HELD = columns("spread", power_cap="slow_power_cap_s", thermal="slow_thermal_s")


def _total(title: str, text: str, select: Select) -> Panel:
    return Panel(
        title,
        text,
        "stat",
        (Query("job_interval", (select,), chosen("site"), filters=_THIS),),
        8,
        4,
        recent_s=JOBS_SINCE_S,
    )


def _per_unit(title: str, unit: str) -> Panel:
    """Return the panel of the energy that one of what a job counts takes."""
    return Panel(
        title,
        f"GPU energy of the job on a node over the {unit} that it reports there.",
        "timeseries",
        (
            Query(
                "job_progress",
                (Select("energy_j", "sum", "energy", per="done"),),
                chosen("site"),
                ("node",),
                every_s=60.0,
                filters=(*_THIS, Filter("unit", "=", unit)),
            ),
        ),
        12,
        unit="J",
    )


JOB_BOARD = Board(
    "powerhall-job",
    "Job",
    "Where does a job run, what does it draw, how well does it use its GPUs, and what slowed it down?",
    (SITE, JOB, _NODES),
    (
        (
            "Totals of the last seven days",
            (
                _total(
                    "GPU energy",
                    "Energy of the job's GPUs in its intervals.",
                    Select("energy_j", "sum", "energy", scale=WATT_HOURS),
                ),
                _total(
                    "GPU intervals", "How many GPU intervals the job had.", Select("energy_j", "count", "intervals")
                ),
                _total("Started", "When its first interval began.", Select("start_s", "min", "started", scale=1000.0)),
            ),
        ),
        (
            "Power and use (whole nodes)",
            (
                Panel(
                    "Power by node",
                    "Power of all GPUs on each of the job's nodes.",
                    "timeseries",
                    (
                        Query(
                            "gpu",
                            (Select("power", "sum", "power"),),
                            group_by=("node",),
                            every_s=10.0,
                            inner=Query("gpu", columns("mean", power="power_w"), _GPUS, ("node", "gpu"), every_s=10.0),
                        ),
                    ),
                    stack=("power",),
                ),
                Panel(
                    "Utilization by node",
                    "Mean share of time with a kernel running.",
                    "timeseries",
                    (series("gpu", columns("mean", util="util_percent"), _GPUS, ("node",)),),
                ),
                Panel(
                    "Memory in use by node",
                    "Memory in use on the fullest GPU of each node.",
                    "timeseries",
                    (series("gpu", columns("max", used="mem_used_bytes"), _GPUS, ("node",)),),
                    8,
                ),
                Panel(
                    "Hottest GPU by node",
                    "Temperature of the hottest GPU of each node.",
                    "timeseries",
                    (series("gpu", columns("max", hottest="temp_c"), _GPUS, ("node",)),),
                    8,
                ),
                Panel(
                    "Held down by power or heat",
                    "Longest time per interval in which a cap or a thermal slowdown held clocks down.",
                    "timeseries",
                    (
                        Query(
                            "gpu",
                            columns("max", power_cap="power_cap", thermal="thermal"),
                            group_by=("node",),
                            every_s=10.0,
                            inner=Query("gpu", _HELD, _GPUS, ("node", "gpu"), every_s=10.0),
                        ),
                    ),
                    8,
                ),
            ),
        ),
        (
            "Energy of its work, where the job reports its progress",
            (
                _per_unit("J per token", "tokens"),
                _per_unit("J per step", "steps"),
            ),
        ),
        (
            "Where and how",
            (
                Panel(
                    "GPU intervals",
                    "Each GPU that the job used, from when to when; click a node for its page.",
                    "table",
                    (
                        table(
                            "job_interval",
                            {"job": "job", "start": "start_s", "end": "end_s", "energy": "energy_j"},
                            chosen("site"),
                            ("hall", "rack", "node", "gpu"),
                            filters=_THIS,
                            limit=20,
                        ),
                    ),
                    12,
                    9,
                    links=(Link("node", "powerhall-node", ("hall", "rack", "node")),),
                    recent_s=JOBS_SINCE_S,
                    sort="start",
                    limit=200,
                    hide=("job",),
                ),
                Panel(
                    "What the plan says",
                    "State, power mode and reason of the job in the newest plans.",
                    "table",
                    (
                        table(
                            "plan_job",
                            {"job": "job", "state": "state", "mode": "mode", "power": "power_w", "reason": "reason"},
                            chosen("site"),
                            (),
                            filters=_THIS,
                            limit=10,
                        ),
                    ),
                    12,
                    9,
                    sort="Time",
                    hide=("job",),
                ),
            ),
        ),
    ),
    hours=24,
)
