"""Physics of one simulated GPU: power follows utilization, clock and limit, temperature follows power, energy adds up.

Draw at clock ratio r is idle + (peak - idle) * util * (0.35 r + 0.65 r^3): a part that scales with frequency and a part
with frequency times voltage squared. The governor picks the highest clock whose draw is within the enforced limit.
Temperature is first order: it settles at inlet + R * P with time constant tau. Above the maximum operating temperature
clocks are lowered by 4 % per kelvin (software); from the slowdown threshold on they are halved (hardware).
"""

import math
from typing import Final

from powerhall_agent.simulate import layout as at

__all__ = ["advance_gpu", "clock_ratio", "draw_w"]

POWER_TAU_S: Final = 0.1
AVERAGE_TAU_S: Final = 0.5
STEP_S: Final = 1.0
_NS: Final = 1e9


def draw_w(util: float, ratio: float, idle_w: float, peak_w: float) -> float:
    """Return the power drawn at a utilization and a clock ratio, both 0 to 1."""
    return idle_w + (peak_w - idle_w) * util * (0.35 * ratio + 0.65 * ratio**3)


def clock_ratio(util: float, limit_w: float, idle_w: float, peak_w: float, *, cap: float, floor: float) -> float:
    """Return the highest clock ratio within [floor, cap] whose draw stays within the limit (Newton's method)."""
    if draw_w(util, cap, idle_w, peak_w) <= limit_w:
        return cap
    share = max(0.0, (limit_w - idle_w) / ((peak_w - idle_w) * util))
    ratio = cap
    for _ in range(8):
        error = 0.35 * ratio + 0.65 * ratio**3 - share
        ratio -= error / (0.35 + 1.95 * ratio * ratio)
        if abs(error) < 1e-6:
            break
    return min(cap, max(floor, ratio))


def advance_gpu(doubles: "memoryview[float]", base: int, dt_s: float) -> int:
    """Move one GPU on by `dt_s` in steps of at most a second; returns the clocks event reasons in force."""
    reasons = 0
    steps = min(120, max(1, math.ceil(dt_s / STEP_S)))
    for _ in range(steps):
        reasons = _step(doubles, base, dt_s / steps)
    return reasons


def _step(d: "memoryview[float]", base: int, dt_s: float) -> int:
    util = d[base + at.C_UTIL]
    idle_w, peak_w, top_mhz = d[base + at.C_IDLE_W], d[base + at.C_PEAK_W], d[base + at.C_CLOCK_MAX_MHZ]
    temp_c = d[base + at.C_TEMP_C]
    reasons = 0
    cap, floor = 1.0, d[base + at.C_CLOCK_IDLE_MHZ] / top_mhz
    lock_mhz = d[base + at.C_LOCK_MHZ]
    if 0 < lock_mhz < top_mhz:
        cap, reasons = max(floor, lock_mhz / top_mhz), 0x2
    over_k = temp_c - d[base + at.C_TEMP_MAX_C]
    if over_k > 0:
        cap, reasons = min(cap, max(0.3, 1.0 - 0.04 * over_k)), reasons | 0x20
        d[base + at.C_SLOW_SW_THERMAL_NS] += dt_s * _NS
    if temp_c >= d[base + at.C_TEMP_SLOWDOWN_C]:
        cap, reasons = min(cap, 0.5), reasons | 0x48
        d[base + at.C_SLOW_HW_THERMAL_NS] += dt_s * _NS
    if d[base + at.C_BRAKE] > 0:
        cap, reasons = min(cap, 0.5), reasons | 0x88
        d[base + at.C_SLOW_BRAKE_NS] += dt_s * _NS
    limit_w = enforced_limit_w(d, base)
    if util > 0:
        ratio = clock_ratio(util, limit_w, idle_w, peak_w, cap=cap, floor=floor)
        if ratio < cap - 1e-9:
            reasons |= 0x4
            d[base + at.C_SLOW_POWER_NS] += dt_s * _NS
    else:
        ratio, reasons = floor, reasons | 0x1
    d[base + at.C_CLOCK_MHZ] = ratio * top_mhz
    _follow(d, base, draw_w(util, ratio, idle_w, peak_w), dt_s)
    rate = d[base + at.C_NVLINK_BYTES_PER_S] * util * 0.2 * dt_s
    for counter, share in ((at.C_NVLINK_TX, 1.0), (at.C_NVLINK_RX, 1.0), (at.C_PCIE_TX, 0.01), (at.C_PCIE_RX, 0.02)):
        d[base + counter] += rate * share
    return reasons


def enforced_limit_w(d: "memoryview[float]", base: int) -> float:
    """Return the limit in force: the limit requested in band, or the BMC's where that is lower."""
    bmc_w = d[base + at.C_BMC_LIMIT_W]
    return min(d[base + at.C_LIMIT_W], bmc_w) if bmc_w > 0 else d[base + at.C_LIMIT_W]


def _follow(d: "memoryview[float]", base: int, target_w: float, dt_s: float) -> None:
    """Let power, average, temperatures and energy follow the target; energy is the exact integral of the lag."""
    start_w = d[base + at.C_POWER_W]
    decay = math.exp(-dt_s / POWER_TAU_S)
    d[base + at.C_POWER_W] = target_w + (start_w - target_w) * decay
    energy_j = target_w * dt_s + (start_w - target_w) * POWER_TAU_S * (1.0 - decay)
    d[base + at.C_ENERGY_MJ] += energy_j * 1000.0
    mean_w = energy_j / dt_s
    average_w = d[base + at.C_AVERAGE_W]
    d[base + at.C_AVERAGE_W] = mean_w + (average_w - mean_w) * math.exp(-dt_s / AVERAGE_TAU_S)
    settled_c = d[base + at.C_INLET_C] + d[base + at.C_RTH_K_PER_W] * mean_w
    decay = math.exp(-dt_s / d[base + at.C_TAU_S])
    d[base + at.C_TEMP_C] = settled_c + (d[base + at.C_TEMP_C] - settled_c) * decay
    hbm_c = settled_c + 6.0 - 8.0 * d[base + at.C_UTIL]
    d[base + at.C_HBM_TEMP_C] = hbm_c + (d[base + at.C_HBM_TEMP_C] - hbm_c) * decay
