"""Node and GPU: what does each GPU draw, how hot is it, what holds it down, and is it healthy?"""

from powerhall.store import Query, Select
from powerhall.store.gpu_fields import FAST_FIELDS, FULL_FIELDS
from powerhall_dashboards.boards.parts import (
    GPU,
    HALL,
    JOBS_SINCE_S,
    NODE,
    RACK,
    SITE,
    chosen,
    columns,
    events,
    series,
    stat,
    table,
)
from powerhall_dashboards.model import Board, Link, Panel, Step

__all__ = ["NODE_BOARD"]

_HERE = chosen("site", "node", "gpu")
_NODE = chosen("site", "node")


_AGGREGATES = {row.name: row.aggregate for row in FAST_FIELDS + FULL_FIELDS}


def _gpus(**fields: str) -> Query:
    """Return columns of each GPU, aggregated as the field table says: `_gpus(temp="temp_c")`."""
    select = tuple(Select(field, _AGGREGATES[field], name) for name, field in fields.items())
    return series("gpu", select, _HERE, ("gpu",))


def _parts(**fields: str) -> Query:
    """Return what the parts of each GPU did, in means."""
    return series("gpu_activity", columns("mean", **fields), _HERE, ("gpu",))


_EACH_GPU = Query("gpu", columns("mean", power="power_w"), _NODE, ("gpu",), every_s=10.0)

_STATS = (
    stat(
        "Hottest GPU",
        "The highest GPU temperature of this node.",
        series("gpu", columns("max", hottest="temp_c"), _NODE),
        steps=(Step(None, "good"), Step(80.0, "warning"), Step(87.0, "critical")),
        width=6,
    ),
    stat(
        "Margin to slowdown",
        "Distance of the GPU nearest to its slowdown temperature.",
        series("gpu", columns("min", margin="temp_margin_c"), _NODE),
        steps=(Step(None, "critical"), Step(3.0, "warning"), Step(10.0, "good")),
        width=6,
    ),
    stat(
        "Utilization",
        "Mean share of time with a kernel running.",
        series("gpu", columns("mean", util="util_percent"), _NODE),
        width=6,
    ),
    stat(
        "GPU power of the node",
        "Power of all GPUs of this node together.",
        Query("gpu", columns("sum", power="power"), every_s=10.0, inner=_EACH_GPU),
        width=6,
    ),
)

NODE_BOARD = Board(
    "powerhall-node",
    "Node and GPU",
    "What does each GPU draw, how hot is it, what holds it down, and is it healthy?",
    (SITE, HALL, RACK, NODE, GPU),
    (
        ("Now", _STATS),
        (
            "Power and heat",
            (
                Panel(
                    "GPU power",
                    "Mean power of each GPU; the limit in force is on the next panel.",
                    "timeseries",
                    (_gpus(power="power_w"),),
                ),
                Panel(
                    "Power limit",
                    "The power limit that each GPU enforces, whoever set it.",
                    "timeseries",
                    (_gpus(limit="power_limit_w"),),
                ),
                Panel("GPU temperature", "Temperature of each GPU.", "timeseries", (_gpus(temp="temp_c"),)),
                Panel(
                    "Memory temperature",
                    "Temperature of each GPU's memory.",
                    "timeseries",
                    (_gpus(hbm_temp="hbm_temp_c"),),
                ),
            ),
        ),
        (
            "Work",
            (
                Panel(
                    "Utilization",
                    "Share of time with a kernel running.",
                    "timeseries",
                    (_gpus(util="util_percent"),),
                    8,
                ),
                Panel(
                    "SM clock",
                    "Clock of the streaming multiprocessors.",
                    "timeseries",
                    (_gpus(clock="sm_clock_mhz"),),
                    8,
                ),
                Panel(
                    "Memory in use",
                    "Memory in use on each GPU.",
                    "timeseries",
                    (_gpus(used="mem_used_bytes"),),
                    8,
                ),
            ),
        ),
        (
            "Parts of each GPU (GPM, Hopper and later)",
            (
                Panel(
                    "Multiprocessors and tensor cores",
                    "Share of multiprocessors at work, and of time in which tensor cores were; utilization alone says "
                    "only that a kernel ran.",
                    "timeseries",
                    (_parts(multiprocessors="sm_active_percent", tensor_cores="tensor_active_percent"),),
                    8,
                ),
                Panel(
                    "Memory bandwidth",
                    "Share of the memory's bandwidth in use.",
                    "timeseries",
                    (_parts(memory="dram_active_percent"),),
                    8,
                ),
                Panel(
                    "Links",
                    "Sent over NVLink and PCIe by each GPU.",
                    "timeseries",
                    (_parts(nvlink="nvlink_tx_bytes_per_s", pcie="pcie_tx_bytes_per_s"),),
                    8,
                ),
            ),
        ),
        (
            "What holds it down",
            (
                Panel(
                    "Held down by power or heat",
                    "Seconds per interval in which the power cap or a thermal slowdown held clocks down.",
                    "timeseries",
                    (_gpus(power_cap="slow_power_cap_s", thermal="slow_thermal_s"),),
                ),
                Panel(
                    "State of each GPU",
                    "ok, or why the GPU does not answer.",
                    "timeline",
                    (series("gpu_state", columns("last", state="reason"), _HERE, ("gpu",)),),
                ),
            ),
        ),
        (
            "Health",
            (
                Panel(
                    "Memory errors and settings",
                    "Newest health counters of each GPU.",
                    "table",
                    (
                        table(
                            "gpu_slow",
                            {
                                "corrected": "ecc_corrected",
                                "uncorrected": "ecc_uncorrected",
                                "remapped": "remapped_rows",
                                "pending": "remap_pending",
                                "processes": "processes",
                                "closure": "energy_closure",
                            },
                            _HERE,
                            ("gpu",),
                        ),
                    ),
                    12,
                    sort="uncorrected",
                ),
                Panel(
                    "What each GPU is",
                    "Product, UUID and driver, as last reported.",
                    "table",
                    (table("gpu_identity", {"name": "name", "uuid": "uuid", "driver": "driver"}, _HERE, ("gpu",)),),
                    12,
                    sort="gpu",
                ),
                Panel(
                    "Events of this node",
                    "XID errors, throttling and lost GPUs, newest first.",
                    "table",
                    (events("site", "node", severity=0.0),),
                    12,
                    sort="Time",
                    limit=20,
                ),
                Panel(
                    "Jobs on this node",
                    "Which job used which GPU; click a job for its page.",
                    "table",
                    (
                        table(
                            "job_interval",
                            {"job": "job", "start": "start_s", "end": "end_s", "energy": "energy_j"},
                            _HERE,
                            ("gpu",),
                            limit=5,
                        ),
                    ),
                    12,
                    links=(Link("job", "powerhall-job", ("job",)),),
                    recent_s=JOBS_SINCE_S,
                    sort="start",
                    limit=40,
                ),
            ),
        ),
    ),
    hours=1,
)
