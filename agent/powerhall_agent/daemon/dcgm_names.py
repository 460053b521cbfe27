"""Metrics by the names and labels of dcgm-exporter, for dashboards and alerts that a site has already.

Units are dcgm-exporter's too: MHz, MiB, mJ, percent, ns. Labels of a pod or of a Slurm job are there where one job
alone holds the GPU. A GPU that is not identified yet has no metrics.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from powerhall.store.line_protocol import Point
from powerhall_agent.daemon.metric_names import Metric

__all__ = ["Sample", "dcgm_samples"]

_MIB: Final = 1.0 / (1 << 20)


@dataclass(frozen=True, slots=True)
class _Row:
    """One metric: `less` is a field that is taken off."""

    name: str
    measurement: str
    field: str
    text: str
    factor: float = 1.0
    is_counter: bool = False
    less: str = ""


_ROWS: Final = (
    _Row("DCGM_FI_DEV_SM_CLOCK", "gpu", "sm_clock_mhz", "SM clock frequency (in MHz)."),
    _Row("DCGM_FI_DEV_MEM_CLOCK", "gpu", "mem_clock_mhz", "Memory clock frequency (in MHz)."),
    _Row("DCGM_FI_DEV_GPU_TEMP", "gpu", "temp_c", "GPU temperature (in C)."),
    _Row("DCGM_FI_DEV_MEMORY_TEMP", "gpu", "hbm_temp_c", "Memory temperature (in C)."),
    _Row("DCGM_FI_DEV_POWER_USAGE", "gpu", "power_w", "Power draw (in W)."),
    _Row("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "gpu", "energy_j", "Total energy consumption (in mJ).", 1e3, True),
    _Row("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "gpu", "power_limit_w", "Power limit that is enforced (in W)."),
    _Row("DCGM_FI_DEV_POWER_MGMT_LIMIT", "gpu", "power_limit_requested_w", "Power limit that is set (in W)."),
    _Row("DCGM_FI_DEV_GPU_UTIL", "gpu", "util_percent", "GPU utilization (in %)."),
    _Row("DCGM_FI_DEV_MEM_COPY_UTIL", "gpu", "mem_util_percent", "Memory utilization (in %)."),
    _Row("DCGM_FI_DEV_FB_TOTAL", "gpu", "mem_total_bytes", "Framebuffer memory (in MiB).", _MIB),
    _Row("DCGM_FI_DEV_FB_USED", "gpu", "mem_used_bytes", "Framebuffer memory used (in MiB).", _MIB),
    _Row("DCGM_FI_DEV_FB_FREE", "gpu", "mem_total_bytes", "Framebuffer memory free (in MiB).", _MIB,
         less="mem_used_bytes"),
    _Row("DCGM_FI_DEV_PSTATE", "gpu", "pstate", "Performance state, 0 is the highest."),
    _Row("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "gpu", "clocks_event_reasons", "Bit mask of clock event reasons."),
    _Row("DCGM_FI_DEV_POWER_VIOLATION", "gpu", "slow_power_cap_s", "Time held down by power (in ns).", 1e9, True),
    _Row("DCGM_FI_DEV_THERMAL_VIOLATION", "gpu", "slow_thermal_s", "Time held down by heat (in ns).", 1e9, True),
    _Row("DCGM_FI_PROF_SM_ACTIVE", "gpu_activity", "sm_active_percent", "Share of time with an SM active.", 0.01),
    _Row("DCGM_FI_PROF_SM_OCCUPANCY", "gpu_activity", "sm_occupancy_percent", "Share of resident warps.", 0.01),
    _Row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gpu_activity", "tensor_active_percent", "Share of tensor activity.", 0.01),
    _Row("DCGM_FI_PROF_DRAM_ACTIVE", "gpu_activity", "dram_active_percent", "Share of time with memory traffic.", 0.01),
    _Row("DCGM_FI_PROF_PCIE_TX_BYTES", "gpu_activity", "pcie_tx_bytes_per_s", "Sent over PCIe (in B/s)."),
    _Row("DCGM_FI_PROF_PCIE_RX_BYTES", "gpu_activity", "pcie_rx_bytes_per_s", "Received over PCIe (in B/s)."),
    _Row("DCGM_FI_PROF_NVLINK_TX_BYTES", "gpu_activity", "nvlink_tx_bytes_per_s", "Sent over NVLink (in B/s)."),
    _Row("DCGM_FI_PROF_NVLINK_RX_BYTES", "gpu_activity", "nvlink_rx_bytes_per_s", "Received over NVLink (in B/s)."),
    _Row("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "gpu_slow", "ecc_corrected", "Single-bit errors, lifetime.", 1.0, True),
    _Row("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "gpu_slow", "ecc_uncorrected", "Double-bit errors, lifetime.", 1.0, True),
    _Row("DCGM_FI_DEV_ROW_REMAP_PENDING", "gpu_slow", "remap_pending", "Rows to be remapped at the next reset."),
    _Row("DCGM_FI_DEV_FB_USED", "gpu_mig", "mem_used_bytes", "Framebuffer memory used (in MiB).", _MIB),
    _Row("DCGM_FI_DEV_FB_FREE", "gpu_mig", "mem_total_bytes", "Framebuffer memory free (in MiB).", _MIB,
         less="mem_used_bytes"),
    _Row("DCGM_FI_PROF_SM_ACTIVE", "gpu_mig", "activity_percent", "Share of time with an SM active.", 0.01),
)  # fmt: skip
_XID: Final = Metric("DCGM_FI_DEV_XID_ERRORS", False, "Value of the last XID error encountered.")

Sample = tuple[Metric, Mapping[str, str], float]


def dcgm_samples(points: Iterable[Point]) -> list[Sample]:
    """Return dcgm-exporter's metrics with their labels and values."""
    points = list(points)
    labels = _labels(points)
    xids = dict.fromkeys(labels, 0.0)
    samples: list[Sample] = []
    for point in points:
        gpu = point.tags.get("gpu", "")
        if gpu not in labels:
            continue
        code = point.fields.get("code")
        if point.measurement == "event" and point.tags.get("kind") == "xid" and isinstance(code, float):
            xids[gpu] = code
        instance = {"GPU_I_ID": point.tags["instance"]} if "instance" in point.tags else {}
        samples += [
            (Metric(row.name, row.is_counter, row.text), labels[gpu] | instance, value)
            for row in _ROWS
            if row.measurement == point.measurement and (value := _value(row, point)) is not None
        ]
    return samples + [(_XID, labels[gpu], code) for gpu, code in sorted(xids.items())]


def _value(row: _Row, point: Point) -> float | None:
    value, less = point.fields.get(row.field), point.fields.get(row.less, 0.0) if row.less else 0.0
    return (value - less) * row.factor if isinstance(value, float) and isinstance(less, float) else None


def _labels(points: Iterable[Point]) -> dict[str, dict[str, str]]:
    """Return the labels of each identified GPU by its index."""
    labels: dict[str, dict[str, str]] = {}
    jobs: dict[str, list[str]] = {}
    for point in points:
        gpu = point.tags.get("gpu", "")
        if point.measurement == "gpu_identity":
            fields = {name: str(point.fields.get(name, "")) for name in ("uuid", "pci_bus_id", "name", "driver")}
            labels[gpu] = {
                "gpu": gpu,
                "UUID": fields["uuid"],
                "pci_bus_id": fields["pci_bus_id"],
                "device": f"nvidia{gpu}",
                "modelName": fields["name"],
                "Hostname": point.tags.get("node", ""),
                "DCGM_FI_DRIVER_VERSION": fields["driver"],
            }
        elif point.measurement == "job_interval":
            jobs.setdefault(gpu, []).append(str(point.fields.get("job", "")))
    for gpu, found in jobs.items():
        if gpu in labels and len(found) == 1 and not found[0].startswith(("process:", "pod:")):
            namespace, slash, pod = found[0].partition("/")
            labels[gpu] |= {"namespace": namespace, "pod": pod} if slash else {"hpc_job": found[0]}
    return labels
