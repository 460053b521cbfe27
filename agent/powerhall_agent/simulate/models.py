"""Figures of the GPU models that can be simulated.

Limits, idle power, clocks, memory and temperature thresholds of the H100 are those that `nvidia-smi -q` prints on a
real machine (driver 590.48.01: idle 69.6 W at 345 MHz, 590 W under a burn, 26 K of margin at 59 degC).
H200, B200, A100 and L40S: published data sheets for power, memory and clocks; thresholds as on the H100.
Thermal resistance and time constant are chosen so that full load settles about 30 K above the inlet, as in the capture.
"""

from dataclasses import dataclass

from powerhall.runtime.errors import Rejected

__all__ = ["MODELS", "GpuModel", "model"]


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One GPU model; powers in W, clocks in MHz, temperatures in degC, memory in bytes."""

    name: str
    architecture: int
    idle_w: float
    peak_w: float
    """Draw at full utilization and full clock without a limit."""
    limit_min_w: float
    limit_max_w: float
    limit_default_w: float
    clock_max_mhz: float
    clock_idle_mhz: float
    mem_clock_mhz: float
    mem_total_bytes: int
    mem_reserved_bytes: int
    temp_max_c: float = 85.0
    temp_slowdown_c: float = 87.0
    temp_shutdown_c: float = 93.0
    rth_k_per_w: float = 0.045
    tau_s: float = 12.0
    hbm_share: float = 0.14
    """Share of the draw that the memory stacks take; 0 where the GPU does not report it."""
    nvlink_bytes_per_s: float = 450e9
    has_hbm_temp: bool = True


_MIB = 1 << 20
MODELS: dict[str, GpuModel] = {
    "H100": GpuModel(
        "NVIDIA H100 80GB HBM3", 9, 69.6, 715.0, 200.0, 700.0, 700.0, 1980.0, 345.0, 2619.0, 81559 * _MIB, 479 * _MIB
    ),
    "H200": GpuModel(
        "NVIDIA H200", 9, 75.0, 715.0, 200.0, 700.0, 700.0, 1980.0, 345.0, 3201.0, 143771 * _MIB, 590 * _MIB
    ),
    "B200": GpuModel(
        "NVIDIA B200", 10, 140.0, 1030.0, 200.0, 1000.0, 1000.0, 1965.0, 120.0, 3996.0, 183359 * _MIB, 720 * _MIB,
        rth_k_per_w=0.032, nvlink_bytes_per_s=900e9,
    ),
    "A100": GpuModel(
        "NVIDIA A100-SXM4-80GB", 7, 62.0, 430.0, 100.0, 400.0, 400.0, 1410.0, 210.0, 1593.0, 81920 * _MIB, 869 * _MIB,
        hbm_share=0.0, nvlink_bytes_per_s=300e9,
    ),
    "L40S": GpuModel(
        "NVIDIA L40S", 8, 36.0, 360.0, 100.0, 350.0, 350.0, 2520.0, 210.0, 9001.0, 46068 * _MIB, 500 * _MIB,
        rth_k_per_w=0.11, hbm_share=0.0, nvlink_bytes_per_s=0.0, has_hbm_temp=False,
    ),
}  # fmt: skip


def model(name: str) -> GpuModel:
    """Return the model of this short name; an unknown one raises Rejected with what is allowed."""
    found = MODELS.get(name.upper())
    if found is None:
        raise Rejected.field("simulate", "model", name, f"must be one of {', '.join(MODELS)}")
    return found
