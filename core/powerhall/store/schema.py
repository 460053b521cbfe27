"""Schema of the stored measurements (version 1): tags, fields, units, cadence and retention.

Rules that keep it portable over InfluxDB 1.6 to 3 and SQLite, and small at 350,000 GPUs:
every numeric field is a float (an integer once written as float, or the reverse, is a type conflict in InfluxDB);
a measurement's tag set is fixed; job, user and UUID are never tags; timestamps are written in milliseconds.
"""

from dataclasses import dataclass
from typing import Literal

from powerhall.store.gpu_fields import FAST_FIELDS, FULL_FIELDS, SLOW_FIELDS, GpuField

__all__ = ["MEASUREMENTS", "RETENTION_DAYS", "SCHEMA_VERSION", "Field", "Measurement", "Retention", "measurement"]

SCHEMA_VERSION = 1
Retention = Literal["fine", "recent", "history"]
RETENTION_DAYS: dict[Retention, int] = {"fine": 7, "recent": 90, "history": 3650}
"""Classes of retention: readings of every few seconds, data of recent weeks, and long-term history."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, its unit ("" where it has none), its meaning, and whether it is text.

    A moment is in seconds since the epoch.
    """

    name: str
    unit: str
    text: str
    is_text: bool = False
    is_moment: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement: fixed tags in order, fields, usual seconds between points and class of retention."""

    name: str
    text: str
    tags: tuple[str, ...]
    fields: tuple[Field, ...]
    cadence_s: float
    retention: Retention

    @property
    def retention_days(self) -> int:
        """Days after which a point may be deleted."""
        return RETENTION_DAYS[self.retention]

    def field(self, name: str) -> Field:
        """Return the field of this name; KeyError when the measurement has none."""
        for entry in self.fields:
            if entry.name == name:
                return entry
        raise KeyError(f"{self.name}.{name}")


_GPU_TAGS = ("site", "hall", "rack", "node", "gpu")
_NODE_TAGS = ("site", "hall", "rack", "node")
_ROLLUP = (
    Field("it_power_w", "W", "IT power of the zone"),
    Field("cooling_power_w", "W", "power of the cooling plant for this zone"),
    Field("loss_power_w", "W", "losses of the power chain for this zone"),
    Field("facility_power_w", "W", "IT, cooling and losses together"),
    Field("heat_w", "W", "heat that the cooling plant takes up"),
    Field("cooling_capacity_w", "W", "heat that the plant can take up in this weather"),
    Field("budget_w", "W", "power budget in force"),
    Field("headroom_w", "W", "budget less power; negative when over budget"),
    Field("planned_w", "W", "power planned by the plan in force"),
    Field("temp_max_c", "degC", "hottest GPU"),
    Field("gpus", "", "GPUs in the zone"),
    Field("gpus_busy", "", "GPUs with utilization above 5 %"),
    Field("gpus_throttled", "", "GPUs slowed by power or heat"),
    Field("gpus_lost", "", "GPUs that do not answer"),
    Field("nodes", "", "nodes in the zone"),
    Field("nodes_stale", "", "nodes without fresh telemetry, counted at their worst case"),
)


def _stored(rows: tuple[GpuField, ...]) -> tuple[Field, ...]:
    return tuple(Field(row.name, row.unit, row.text) for row in rows)


_COARSE = (
    "means over five minutes, but the least budget and headroom, the highest temperature, the most GPUs throttled or "
    "lost and the most stale nodes"
)

_ALL = (
    Measurement(
        "gpu",
        "GPU readings of the hot set; a power is the mean of its interval, with its extremes",
        _GPU_TAGS,
        _stored(FAST_FIELDS + FULL_FIELDS),
        1.0,
        "fine",
    ),
    Measurement(
        "gpu_fast",
        "full-rate power around an event, from the flight recorder",
        _GPU_TAGS,
        (
            Field("power_w", "W", "instantaneous power"),
            Field("energy_j", "J", "energy counter"),
        ),
        0.1,
        "recent",
    ),
    Measurement(
        "gpu_slow",
        "health counters and settings that change rarely",
        _GPU_TAGS,
        _stored(SLOW_FIELDS),
        10.0,
        "recent",
    ),
    Measurement(
        "gpu_mig",
        "one MIG instance: its memory and activity (power and temperature are those of the parent GPU)",
        (*_GPU_TAGS, "instance"),
        (
            Field("mem_used_bytes", "B", "memory in use"),
            Field("mem_total_bytes", "B", "memory of the instance"),
            Field("activity_percent", "%", "share of the instance's multiprocessors that are active"),
        ),
        10.0,
        "fine",
    ),
    Measurement(
        "gpu_state",
        "whether a GPU answers, and the reason where it does not",
        _GPU_TAGS,
        (
            Field("up", "", "1 when the GPU answers, 0 when quarantined"),
            Field("reason", "", "lost, reset_required, hung, unknown_error, or ok", is_text=True),
            Field("call_latency_s", "s", "slowest driver call in the interval"),
        ),
        1.0,
        "fine",
    ),
    Measurement(
        "gpu_identity",
        "identity of a GPU; written at start, on every rebind and every ten minutes",
        _GPU_TAGS,
        (
            Field("uuid", "", "GPU UUID", is_text=True),
            Field("name", "", "product name", is_text=True),
            Field("serial", "", "board serial", is_text=True),
            Field("pci_bus_id", "", "PCI bus id", is_text=True),
            Field("vbios", "", "VBIOS version", is_text=True),
            Field("driver", "", "driver version", is_text=True),
            Field("architecture", "", "NVML architecture number"),
        ),
        600.0,
        "history",
    ),
    Measurement(
        "event",
        "an event: XID, ECC, MIG change, GPU unavailable, throttle onset, curtailment, plan change",
        (*_NODE_TAGS, "gpu", "kind"),
        (
            Field("code", "", "XID number, or the code of the event"),
            Field("detail", "", "in plain words", is_text=True),
            Field("severity", "", "0 information, 1 warning, 2 critical"),
        ),
        0.0,
        "history",
    ),
    Measurement(
        "node",
        "host readings",
        _NODE_TAGS,
        (
            Field("power_w", "W", "node power from the BMC"),
            Field("gpu_power_w", "W", "sum of the GPUs' power"),
            Field("cpu_power_w", "W", "CPU packages, from RAPL"),
            Field("dram_power_w", "W", "memory, from RAPL"),
            Field("cpu_energy_j", "J", "CPU package energy"),
            Field("inlet_temp_c", "degC", "air or coolant entering the node"),
            Field("gpus", "", "GPUs that the driver lists"),
            Field("gpus_up", "", "GPUs that answer"),
        ),
        1.0,
        "fine",
    ),
    Measurement(
        "agent",
        "metrics of the agent itself",
        _NODE_TAGS,
        (
            Field("cpu_percent", "%", "CPU of one core, all processes of the agent"),
            Field("rss_bytes", "B", "memory, all processes of the agent"),
            Field("lag_s", "s", "age of the newest point that the store acknowledged"),
            Field("spool_bytes", "B", "bytes waiting on disk"),
            Field("spool_points", "", "points waiting on disk"),
            Field("dropped_points", "", "points dropped since start because the spool was full"),
            Field("rejected_points", "", "points that the store refused, kept aside in a file"),
            Field("sent_points", "", "points that the store acknowledged since start"),
            Field("retries", "", "failed deliveries since start"),
            Field("ticks_missed", "", "sampling ticks missed since start"),
            Field("driver_time_s", "s", "time inside driver calls since start"),
            Field("driver_stuck", "", "1 while the sampler does not answer"),
            Field("sampler_restarts", "", "sampler restarts since start"),
        ),
        10.0,
        "recent",
    ),
    Measurement(
        "collector",
        "each collector's success and duration, so that a broken sensor is data",
        (*_NODE_TAGS, "collector"),
        (
            Field("success", "", "1 when the collector ran, 0 when it failed"),
            Field("duration_s", "s", "how long it ran"),
            Field("detail", "", "why it failed", is_text=True),
        ),
        10.0,
        "fine",
    ),
    Measurement(
        "job_interval",
        "which job used which GPU from when to when; the row number keeps points apart",
        (*_NODE_TAGS, "gpu"),
        (
            Field("job", "", "job id of the scheduler", is_text=True),
            Field("user_hash", "", "salted hash of the user, where configured", is_text=True),
            Field("uuid", "", "GPU UUID", is_text=True),
            Field("start_s", "s", "start, seconds since the epoch", is_moment=True),
            Field("end_s", "s", "end, seconds since the epoch; 0 while it runs", is_moment=True),
            Field("energy_j", "J", "energy of this GPU over the interval"),
        ),
        0.0,
        "history",
    ),
    Measurement(
        "facility",
        "meters of the building: power, flow, temperatures, by device and point",
        ("site", "hall", "device", "point"),
        (
            Field("value", "", "reading in the unit that the point's name ends in"),
            Field("quality", "", "1 good, 0 stale or implausible"),
        ),
        5.0,
        "recent",
    ),
    Measurement(
        "weather",
        "outdoor air",
        ("site",),
        (
            Field("dry_bulb_c", "degC", "dry-bulb temperature"),
            Field("wet_bulb_c", "degC", "wet-bulb temperature"),
        ),
        300.0,
        "history",
    ),
    Measurement("rack_10s", "roll-up of a rack", ("site", "hall", "rack"), _ROLLUP, 10.0, "fine"),
    Measurement("hall_10s", "roll-up of a hall", ("site", "hall"), _ROLLUP, 10.0, "fine"),
    Measurement("site_10s", "roll-up of the site", ("site",), _ROLLUP, 10.0, "fine"),
    Measurement("rack_5m", f"roll-up of a rack: {_COARSE}", ("site", "hall", "rack"), _ROLLUP, 300.0, "history"),
    Measurement("hall_5m", f"roll-up of a hall: {_COARSE}", ("site", "hall"), _ROLLUP, 300.0, "history"),
    Measurement("site_5m", f"roll-up of the site: {_COARSE}", ("site",), _ROLLUP, 300.0, "history"),
    Measurement(
        "plan",
        "one published plan",
        ("site",),
        (
            Field("plan_id", "", "hash of the plan's inputs", is_text=True),
            Field("status", "", "optimal, feasible or fallback", is_text=True),
            Field("value", "", "weighted work that the plan delivers"),
            Field("bound", "", "proven upper bound of any plan's value"),
            Field("gap", "", "bound less value, over bound"),
            Field("verified", "", "1 when the independent checker passed the plan"),
            Field("solve_s", "s", "time to solve"),
            Field("jobs_running", "", "jobs that the plan keeps running"),
            Field("jobs_started", "", "jobs that the plan starts within its horizon"),
            Field("jobs_waiting", "", "jobs that the plan leaves waiting"),
            Field("work_gpu_s", "s", "GPU seconds of work delivered within the horizon"),
            Field("energy_j", "J", "facility energy over the horizon"),
            Field("cost", "currency", "energy cost over the horizon"),
            Field("stale_share", "", "share of nodes without fresh telemetry"),
        ),
        300.0,
        "history",
    ),
    Measurement(
        "plan_zone",
        "forecast of the newest plan per zone and slot",
        ("site", "zone"),
        (
            Field("planned_w", "W", "planned power"),
            Field("budget_w", "W", "power budget"),
            Field("headroom_w", "W", "budget less plan"),
            Field("heat_w", "W", "planned heat (halls)"),
            Field("cooling_capacity_w", "W", "cooling capacity in the forecast weather (halls)"),
            Field("price_per_mw", "", "value of one more MW in this zone and slot"),
        ),
        300.0,
        "recent",
    ),
    Measurement(
        "plan_storage",
        "operation of each storage unit in the newest plan, per slot: battery (electricity), tank and loop (heat)",
        ("site", "storage"),
        (
            Field("power_w", "W", "power that the unit delivers; negative when it takes up"),
            Field("stored_j", "J", "content at the slot's start"),
            Field("soc_percent", "%", "content at the slot's start, of its capacity"),
            Field("temp_c", "degC", "supply temperature at the slot's start (loops)"),
        ),
        300.0,
        "recent",
    ),
    Measurement(
        "plan_job",
        "one job of the newest plan; the row number keeps points apart, the job is a field",
        ("site", "row"),
        (
            Field("job", "", "job id", is_text=True),
            Field("state", "", "running, planned or waiting", is_text=True),
            Field("hall", "", "hall", is_text=True),
            Field("mode", "", "power mode", is_text=True),
            Field("gpus", "", "GPUs"),
            Field("power_w", "W", "planned draw"),
            Field("start_s", "s", "planned start, seconds since the epoch; 0 when waiting", is_moment=True),
            Field("end_s", "s", "planned end, seconds since the epoch; 0 when waiting", is_moment=True),
            Field("weight", "", "priority weight"),
            Field("reason", "", "why it waits or runs slowed, in plain words", is_text=True),
            Field("what_if", "", "changes that would start it or run it faster, in numbers", is_text=True),
            Field("plan_id", "", "plan that the row belongs to; only rows of the newest plan count", is_text=True),
        ),
        300.0,
        "recent",
    ),
    Measurement(
        "plan_slot",
        "which job the newest plan runs, per slot and lane; lanes hold a hall's largest jobs, for a Gantt chart",
        ("site", "hall", "lane"),
        (
            Field("job", "", "job id, or - where the lane is free", is_text=True),
            Field("gpus", "", "GPUs of the job"),
        ),
        300.0,
        "recent",
    ),
    Measurement(
        "lease",
        "power-cap lease of a node",
        ("site", "hall", "node"),
        (
            Field("cap_w", "W", "cap of the node under the lease"),
            Field("safe_cap_w", "W", "cap without a lease"),
            Field("expires_s", "s", "end of the lease, seconds since the epoch", is_moment=True),
            Field("plan_id", "", "plan that gave the lease", is_text=True),
            Field("signed", "", "the signed lease that the capper reads, in base64", is_text=True),
        ),
        60.0,
        "recent",
    ),
    Measurement(
        "lease_confirmation",
        "a capper's signed statement that no lease older than this can come into force on its node",
        ("node",),
        (
            Field("sequence", "", "number of the newest lease that the capper accepted"),
            Field("signed", "", "the signed confirmation, in base64", is_text=True),
        ),
        60.0,
        "recent",
    ),
    Measurement(
        "alert",
        "alarms raised by Powerhall itself",
        ("site", "zone", "kind"),
        (
            Field("active", "", "1 while the alarm stands"),
            Field("detail", "", "in plain words", is_text=True),
        ),
        0.0,
        "history",
    ),
)

MEASUREMENTS: dict[str, Measurement] = {entry.name: entry for entry in _ALL}


def measurement(name: str) -> Measurement:
    """Return the measurement of this name; KeyError when the schema has none."""
    return MEASUREMENTS[name]
