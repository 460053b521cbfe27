"""Schema of the stored measurements (version 1): tags, fields, units, cadence and retention.

Rules that keep it portable over InfluxDB 1.6 to 3 and SQLite, and small at 350,000 GPUs:
every numeric field is a float (an integer once written as float, or the reverse, is a type conflict in InfluxDB);
a measurement's tag set is fixed; job, user and UUID are never tags; timestamps are written in milliseconds.
"""

from powerhall.store.bill_measurements import BILL_MEASUREMENTS
from powerhall.store.gpu_fields import ACTIVITY_FIELDS, FAST_FIELDS, FULL_FIELDS, SLOW_FIELDS, GpuField
from powerhall.store.measurement import RETENTION_DAYS, Field, Measurement, Retention
from powerhall.store.plan_measurements import PLAN_MEASUREMENTS

__all__ = ["MEASUREMENTS", "RETENTION_DAYS", "SCHEMA_VERSION", "Field", "Measurement", "Retention", "measurement"]

SCHEMA_VERSION = 1
_GPU_TAGS = ("site", "hall", "rack", "node", "gpu")
_NODE_TAGS = ("site", "hall", "rack", "node")
_ROLLUP = (
    Field("it_power_w", "W", "IT power of the zone"),
    Field("it_measured_w", "W", "part of it_power_w that BMCs and meters measure"),
    Field("it_estimated_w", "W", "part of it_power_w that follows from GPUs and their share of the node"),
    Field("it_assumed_w", "W", "part of it_power_w at its worst: nodes and GPUs without a plausible reading"),
    Field("meter_power_w", "W", "IT power by the zone's own meters, where they are plausible"),
    Field("readings_dropped", "", "implausible readings of nodes and meters, not counted"),
    Field("cooling_power_w", "W", "power of the cooling plant for this zone"),
    Field("loss_power_w", "W", "losses of the power chain for this zone"),
    Field("facility_power_w", "W", "IT, cooling and losses together"),
    Field("heat_w", "W", "heat that the cooling plant takes up, liquid and air together"),
    Field("cooling_capacity_w", "W", "heat that the plant can take up in this weather, liquid and air together"),
    Field("heat_liquid_w", "W", "heat to liquid, where liquid and air have plants of their own"),
    Field("cooling_capacity_liquid_w", "W", "heat that the plants of liquid can take up in this weather"),
    Field("heat_air_w", "W", "heat to air, where liquid and air have plants of their own"),
    Field("cooling_capacity_air_w", "W", "heat that the plants of air can take up in this weather"),
    Field("cooling_load_percent", "%", "heat per capacity of the most loaded medium; 999 without capacity"),
    Field("cooling_headroom_w", "W", "capacity less heat of the medium that has least; negative when not cooled"),
    Field("water_l_per_h", "l/h", "water that towers and pads use"),
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
    return tuple(Field(row.name, row.unit, row.text, is_counter=row.kind == "counter") for row in rows)


_COARSE = (
    "means over five minutes, but the least budget and headroom, the highest temperature and cooling load, the most "
    "GPUs throttled or lost, stale nodes and dropped readings"
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
            Field("energy_j", "J", "energy counter", is_counter=True),
        ),
        0.1,
        "recent",
    ),
    Measurement(
        "gpu_slow",
        "health counters and settings that change rarely",
        _GPU_TAGS,
        (
            *_stored(SLOW_FIELDS),
            Field("power_profile_ids", "", "workload power profiles in force, such as 0 37 254", is_text=True),
        ),
        10.0,
        "recent",
    ),
    Measurement(
        "gpu_activity",
        "what the parts of a GPU did, from NVML's GPM (Hopper and later); means since the point before",
        _GPU_TAGS,
        _stored(ACTIVITY_FIELDS),
        10.0,
        "recent",
    ),
    Measurement(
        "gpu_extra",
        "NVML fields that the site added by a file, a series each",
        (*_GPU_TAGS, "field"),
        (
            Field("value", "", "the reading, in the unit that the file says"),
            Field("unit", "", "that unit", is_text=True),
        ),
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
        "an event: XID, ECC, MIG change, GPU unavailable, throttle onset, suspect sensor, curtailment, plan change",
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
            Field("cpu_energy_j", "J", "CPU package energy", is_counter=True),
            Field("inlet_temp_c", "degC", "air or coolant entering the node"),
            Field("leak_state", "", "worst of the BMC's leak detectors: 0 none, 1 warning, 2 leak"),
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
            Field("dropped_points", "", "points lost since start: spool or disk full, damage", is_counter=True),
            Field("rejected_points", "", "points that the store refused, kept aside in a file", is_counter=True),
            Field("sent_points", "", "points that the store acknowledged since start", is_counter=True),
            Field("retries", "", "failed deliveries since start", is_counter=True),
            Field(
                "foreign_answers",
                "",
                "answers of something other than the store since start, such as a proxy's page",
                is_counter=True,
            ),
            Field("ticks_missed", "", "sampling ticks missed since start", is_counter=True),
            Field("driver_time_s", "s", "time inside driver calls since start", is_counter=True),
            Field("driver_stuck", "", "1 while the sampler does not answer"),
            Field("sampler_restarts", "", "sampler restarts since start", is_counter=True),
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
        "sensor",
        "a sensor that has shown implausible readings: how many were dropped, and whether it is to be believed",
        (*_NODE_TAGS, "gpu", "sensor"),
        (
            Field(
                "dropped_readings",
                "",
                "implausible readings since the agent's start, none of them stored",
                is_counter=True,
            ),
            Field("suspect", "", "1 after ten in a row, 0 after ten plausible ones"),
            Field("reason", "", "why the last one was dropped", is_text=True),
        ),
        10.0,
        "fine",
    ),
    Measurement(
        "job_interval",
        "which job used which GPU from when to when; of several that began at once each has a millisecond of its own",
        (*_NODE_TAGS, "gpu"),
        (
            Field("job", "", "job id of the scheduler", is_text=True),
            Field("user_hash", "", "salted hash of the user, where configured", is_text=True),
            Field("uuid", "", "GPU UUID", is_text=True),
            Field("start_s", "s", "start, seconds since the epoch", is_moment=True),
            Field("end_s", "s", "end, seconds since the epoch; 0 while it runs", is_moment=True),
            Field("energy_j", "J", "its share of the energy of this GPU over the interval"),
            Field(
                "energy_split",
                "",
                "how the share was found: whole, mig_activity, process_utilization, mig_memory or equal",
                is_text=True,
            ),
            Field("instances", "", "UUIDs of its MIG instances, where it has some", is_text=True),
        ),
        0.0,
        "history",
    ),
    Measurement(
        "job_progress",
        "what a job says it did on this node since its last report, and its GPU energy of that time",
        _NODE_TAGS,
        (
            Field("job", "", "job id of the scheduler", is_text=True),
            Field("unit", "", "what is counted, such as tokens or steps", is_text=True),
            Field("done", "", "how many since the last report"),
            Field("energy_j", "J", "the job's energy on this node's GPUs since then"),
            Field("total", "", "how many since the job began, as its reports say", is_counter=True),
        ),
        60.0,
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
)

MEASUREMENTS: dict[str, Measurement] = {entry.name: entry for entry in (*_ALL, *PLAN_MEASUREMENTS, *BILL_MEASUREMENTS)}


def measurement(name: str) -> Measurement:
    """Return the measurement of this name; KeyError when the schema has none."""
    return MEASUREMENTS[name]
