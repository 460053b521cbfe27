"""Which readings of a GPU are physically possible, by the GPU's own limits; those that are not are dropped.

Power may pass the highest limit by half for milliseconds (transients of a few percent are usual); temperatures end
well above the shutdown temperature, and silicon does not change by more than its own cooling curve allows; utilization
is a share, memory in use a part of the memory present, clocks and data rates are far below the bounds here. A bound
leaves room for honest devices: it is there for values such as 0xFFFFFFFF, not for judging a sensor's accuracy.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from powerhall_agent.base.encoder import Fields
from powerhall_agent.base.sensor_log import SensorEvent, SensorLog
from powerhall_agent.sampling.energy import MOST_MW

__all__ = ["GpuPlausibility", "NodePlausibility"]

_OVERSHOOT: Final = 1.5
_OVERSHOOT_W: Final = 50.0
_MOST_W: Final = MOST_MW / 1000.0
_MODULE_SHARE: Final = 3.0
"""A superchip module draws at most this multiple of its GPU's limit (GB300: two GPUs and a CPU)."""
_LEAST_C, _MOST_C = 1.0, 125.0
_SHUTDOWN_ROOM_K: Final = 25.0
_SLEW_K: Final = 30.0
_SLEW_K_PER_S: Final = 20.0
_MOST_MHZ: Final = 10_000.0
_MOST_BYTES: Final = float(1 << 44)
_MOST_RAMP_W_PER_S: Final = 1.0e6
_MOST_COUNT: Final = 4_294_967_294.0
_MOST_SECONDS: Final = 3.0e9
_UNKNOWN_PSTATE: Final = 32.0
"""NVML_PSTATE_UNKNOWN: an honest "unknown", left out without a word."""
_TEMPERATURES: Final = ("temp_c", "hbm_temp_c", "temp_max_c")
_POWERS: Final = ("power_average_w", "hbm_power_w", "module_power_w")
_RATED: Final = ("power_limit_max_w", "power_limit_default_w")
"""Limits of the board, which no setting moves."""
_LEARNED: Final = (*_RATED, "power_limit_w", "power_limit_min_w", "temp_shutdown_c")
_SET_LIMITS: Final = ("power_limit_w", "power_limit_requested_w")
_LIMIT_ROOM: Final = 1.1


@dataclass(frozen=True, slots=True)
class _Range:
    least: float
    most: float
    unit: str = ""


_RANGES: Final[Mapping[str, _Range]] = {
    "temp_margin_c": _Range(-100.0, 200.0, "K"),
    "temp_shutdown_c": _Range(20.0, 250.0, "degC"),
    "temp_slowdown_c": _Range(20.0, 250.0, "degC"),
    "sm_clock_mhz": _Range(0.0, _MOST_MHZ, "MHz"),
    "mem_clock_mhz": _Range(0.0, 4 * _MOST_MHZ, "MHz"),
    "mem_used_bytes": _Range(0.0, _MOST_BYTES, "B"),
    "mem_total_bytes": _Range(1.0, _MOST_BYTES, "B"),
    "util_percent": _Range(0.0, 100.0, "%"),
    "mem_util_percent": _Range(0.0, 100.0, "%"),
    "activity_percent": _Range(0.0, 100.0, "%"),
    **dict.fromkeys(
        (
            "sm_active_percent",
            "sm_occupancy_percent",
            "tensor_active_percent",
            "tensor_dfma_percent",
            "tensor_hmma_percent",
            "tensor_dmma_percent",
            "tensor_imma_percent",
            "dram_active_percent",
        ),
        _Range(0.0, 110.0, "%"),
    ),
    **dict.fromkeys(
        ("pcie_tx_bytes_per_s", "pcie_rx_bytes_per_s", "nvlink_tx_bytes_per_s", "nvlink_rx_bytes_per_s"),
        _Range(0.0, 1e13, "B/s"),
    ),
    **dict.fromkeys(
        ("power_smoothing_floor_w", "power_smoothing_ceiling_w", "power_floor_primary_w", "power_floor_secondary_w"),
        _Range(0.0, 2 * _MOST_W, "W"),
    ),
    **dict.fromkeys(("power_ramp_up_w_per_s", "power_ramp_down_w_per_s"), _Range(0.0, _MOST_RAMP_W_PER_S, "W/s")),
    **dict.fromkeys(("power_smoothing", "power_smoothing_delayed", "mig_mode"), _Range(0.0, 1.0)),
    "power_smoothing_profile": _Range(0.0, 255.0),
    "power_profiles": _Range(0.0, _MOST_COUNT),
    "edpp_percent": _Range(0.0, 1000.0, "%"),
    "c2c_links": _Range(0.0, 1024.0),
    "c2c_max_bytes_per_s": _Range(0.0, 1e14, "B/s"),
    "fabric_state": _Range(0.0, 255.0),
    "clocks_event_reasons": _Range(0.0, float(1 << 48)),
    "pstate": _Range(0.0, 15.0),
    "recovery_action": _Range(0.0, 255.0),
    "power_limit_w": _Range(0.001, 2 * _MOST_W, "W"),
    "power_limit_requested_w": _Range(0.001, 2 * _MOST_W, "W"),
    "power_limit_min_w": _Range(0.0, 2 * _MOST_W, "W"),
    "power_limit_max_w": _Range(0.001, 2 * _MOST_W, "W"),
    "power_limit_default_w": _Range(0.001, 2 * _MOST_W, "W"),
    "slow_power_cap_s": _Range(0.0, _MOST_SECONDS, "s"),
    "slow_thermal_s": _Range(0.0, _MOST_SECONDS, "s"),
    "slow_hw_power_brake_s": _Range(0.0, _MOST_SECONDS, "s"),
    "nvlink_tx_bytes": _Range(0.0, 1e18, "B"),
    "nvlink_rx_bytes": _Range(0.0, 1e18, "B"),
    "pcie_tx_bytes": _Range(0.0, 1e18, "B"),
    "pcie_rx_bytes": _Range(0.0, 1e18, "B"),
    "ecc_corrected": _Range(0.0, _MOST_COUNT),
    "ecc_uncorrected": _Range(0.0, _MOST_COUNT),
    "remapped_rows": _Range(0.0, _MOST_COUNT),
    "remap_pending": _Range(0.0, 255.0),
    "retired_pages": _Range(0.0, _MOST_COUNT),
    "processes": _Range(0.0, 1e6),
}
"""Bounds that hold for every GPU."""


class GpuPlausibility:
    """The checks of one GPU; they learn its power limits and shutdown temperature from the readings themselves."""

    def __init__(self, log: SensorLog, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Drop what is impossible, and keep account in the log."""
        self._log, self._clock = log, clock
        self._limit_w: dict[str, float] = {}
        self._most_c = _MOST_C
        self._learned: dict[str, float] = {}
        self._temps: dict[str, tuple[float, int]] = {}
        self._believed: dict[str, float | str] = {}
        """The newest believed reading of each field: the same again needs no check, unless a limit has been learned."""
        self.most_w = self.counter_most_w = _MOST_W
        """The highest power that this GPU can show, and the fastest that its energy counter can rise, in W.

        On superchips the counter counts the whole module.
        """
        self._plain_bounds = {name: (bounds.least, bounds.most) for name, bounds in _RANGES.items()}
        self._bound_powers()

    @property
    def knows_limit(self) -> bool:
        """Whether the GPU has told a power limit."""
        return bool(self._limit_w)

    def sift(self, fields: Fields) -> Fields:
        """Return the fields without those that are impossible; the same object where all are possible."""
        found = fields if self._all_possible(fields) else self._without_faults(fields)
        if self._log.watched:
            for name in found:
                self._log.believe(name)
        for name in _LEARNED:
            value = found.get(name)
            if value is not None and value != self._learned.get(name):
                self._learn(name, value)
        return found

    def _all_possible(self, fields: Fields) -> bool:
        """Return whether nothing is to be left out; one function, because it runs for every reading."""
        bounds, believed = self._plain_bounds, self._believed
        for name, value in fields.items():
            if value != believed.get(name):
                pair = bounds.get(name)
                if pair is not None and not pair[0] <= value <= pair[1]:  # type: ignore[operator] # only numbers have bounds
                    return False
        for name in _TEMPERATURES:
            temp_c = fields.get(name)
            if temp_c is not None and (isinstance(temp_c, str) or self._temp_fault(name, temp_c)):
                return False
        used, total = fields.get("mem_used_bytes"), fields.get("mem_total_bytes")
        if isinstance(used, int | float) and isinstance(total, int | float) and used > total:
            return False
        believed.update(fields)
        return True

    def _temp_fault(self, name: str, temp_c: float) -> bool:
        if temp_c == self._believed.get(name):
            self._temps[name] = temp_c, self._clock()
            return False
        return not _LEAST_C <= temp_c <= self._most_c or bool(self._slew(name, temp_c))

    def _without_faults(self, fields: Fields) -> dict[str, float | str]:
        found: dict[str, float | str] = {}
        for name, value in fields.items():
            reason = "" if isinstance(value, str) else self._fault(name, value)
            if not reason:
                found[name] = value
            elif reason != "unknown":
                self._log.drop(name, reason)
        if "util_percent" in fields and "util_percent" not in found:
            found.pop("mem_util_percent", None)  # one call answers both
        self._part_of_memory(found)
        return found

    def _fault(self, name: str, value: float) -> str:
        """Return why a value is impossible, "" where it is possible."""
        if not math.isfinite(value):
            return f"{value} is no number"
        if name == "pstate" and value == _UNKNOWN_PSTATE:
            return "unknown"
        bounds = self._bounds(name)
        if bounds is not None and not bounds.least <= value <= bounds.most:
            side = f"above {bounds.most:,.6g}" if value > bounds.most else f"below {bounds.least:,.6g}"
            return f"{value:,.6g} {bounds.unit} is {side} {bounds.unit}".replace("  ", " ").rstrip()
        return self._slew(name, value) if name in _TEMPERATURES else ""

    def _bounds(self, name: str) -> _Range | None:
        if name in _RANGES:
            return _Range(*self._plain_bounds[name], _RANGES[name].unit)
        if name in _TEMPERATURES:
            return _Range(_LEAST_C, self._most_c, "degC")
        return _Range(*self._plain_bounds[name], "W") if name in _POWERS else None

    def _bound_powers(self) -> None:
        rated_w = max((self._limit_w.get(name, 0.0) for name in _RATED), default=0.0)
        limit_w = rated_w or max(self._limit_w.values(), default=0.0)
        if rated_w:
            for name in _SET_LIMITS:
                self._plain_bounds[name] = 0.001, rated_w * _LIMIT_ROOM
        self.most_w = min(_MOST_W, limit_w * _OVERSHOOT + _OVERSHOOT_W) if limit_w else _MOST_W
        self.counter_most_w = min(_MOST_W, _MODULE_SHARE * self.most_w)
        self._believed.clear()  # it was believed within other bounds
        for name in _POWERS:
            self._plain_bounds[name] = 0.0, self.counter_most_w if name == "module_power_w" else self.most_w

    def _slew(self, name: str, temp_c: float) -> str:
        """Return why a temperature cannot follow on the one before."""
        now_ns = self._clock()
        last = self._temps.get(name)
        if last is not None:
            passed_s = (now_ns - last[1]) / 1e9
            if abs(temp_c - last[0]) > _SLEW_K + _SLEW_K_PER_S * passed_s:
                return f"{temp_c:.0f} degC, {passed_s:.1f} s after {last[0]:.0f} degC"
        self._temps[name] = temp_c, now_ns
        return ""

    def _part_of_memory(self, fields: dict[str, float | str]) -> None:
        used, total = fields.get("mem_used_bytes"), fields.get("mem_total_bytes")
        if isinstance(used, int | float) and isinstance(total, int | float) and used > total:
            del fields["mem_used_bytes"]
            self._log.drop("mem_used_bytes", f"{used:,.0f} B are used of {total:,.0f} B")

    def _learn(self, name: str, value: float | str) -> None:
        """Take over one of the GPU's own limits."""
        if isinstance(value, str):
            return
        self._learned[name] = float(value)
        if name == "temp_shutdown_c":
            self._most_c = float(value) + _SHUTDOWN_ROOM_K
            self._believed.clear()
        else:
            self._limit_w[name] = max(float(value), self._limit_w.get(name, 0.0) if name == "power_limit_w" else 0.0)
            self._bound_powers()


_NODE_MOST_W: Final = 250_000.0
"""Of a node whose GPUs do not tell their limits: more than a rack-scale system."""
_NODE_REST_W: Final = 8_000.0
"""Most that a node draws beside its GPUs: CPUs, memory, fans, network."""
_NODE_RANGES: Final[Mapping[str, _Range]] = {
    "cpu_power_w": _Range(0.0, 20_000.0, "W"),
    "dram_power_w": _Range(0.0, 10_000.0, "W"),
    "inlet_temp_c": _Range(-30.0, 90.0, "degC"),
    "leak_state": _Range(0.0, 2.0, ""),
}
_LEAKS: Final = ("no leak any more", "a leak detector warns", "a leak detector has found coolant")
_NOISE_W: Final = 50.0
"""A meter without a reading shows 0 W, or its noise around it; the node that runs this agent draws more."""
_BESIDE_GPUS: Final = 0.85
"""A node's meter may read this share of the sum of its GPUs: both sides have errors of some percent."""
_LAG_S: Final = 60.0
"""A BMC may show a mean over a minute."""
_KNOWN_S: Final = 10.0


class NodePlausibility:
    """The checks of a host's readings; node power is also compared with the sum of its GPUs over the last minute."""

    def __init__(self, log: SensorLog) -> None:
        """Drop what is impossible, and keep account in the log."""
        self._log = log
        self._sums: list[tuple[int, float]] = []
        self._leak_state = 0.0
        self.gpus_most_w = 0.0
        """The highest power that the node's GPUs can show together, in W; 0 where it is not known."""

    def note_gpus(self, now_ns: int, power_w: float) -> None:
        """Take the present sum of the GPUs' power."""
        self._sums.append((now_ns, power_w))
        while now_ns - self._sums[0][0] > _LAG_S * 1e9:
            self._sums.pop(0)

    def sift(self, fields: Fields) -> Fields:
        """Return the fields without those that are impossible."""
        found: dict[str, float | str] = {}
        for name, value in fields.items():
            reason = "" if isinstance(value, str) else self._fault(name, value)
            if reason == "unknown":
                continue
            if reason:
                self._log.drop(name, reason)
            else:
                found[name] = value
                self._log.believe(name)
        self._watch_leaks(found.get("leak_state", self._leak_state))
        return found

    def _watch_leaks(self, state: float | str) -> None:
        """Tell of a change of the node's leak detectors."""
        if state != self._leak_state and isinstance(state, float):
            self._leak_state, number = state, int(state)
            self._log.tell(SensorEvent("leak", number, _LEAKS[number], number))

    def _fault(self, name: str, value: float) -> str:
        if not math.isfinite(value):
            return f"{value} is no number"
        bounds = _NODE_RANGES.get(name)
        if name == "power_w" and -_NOISE_W <= value < 1.0:
            return "unknown"
        if name == "power_w":
            bounds = _Range(1.0, self._most_w, "W")
        if bounds is not None and not bounds.least <= value <= bounds.most:
            side = f"above {bounds.most:,.6g}" if value > bounds.most else f"below {bounds.least:,.6g}"
            return f"{value:,.6g} {bounds.unit} is {side} {bounds.unit}"
        gpus_w = self._gpus_least_w()
        if name == "power_w" and value < _BESIDE_GPUS * gpus_w:
            return f"{value:,.0f} W, while the GPUs alone draw {gpus_w:,.0f} W"
        return ""

    def _gpus_least_w(self) -> float:
        """Return the least that the GPUs drew together in the last minute; 0 while too little of it is known."""
        if not self._sums or self._sums[-1][0] - self._sums[0][0] < _KNOWN_S * 1e9:
            return 0.0
        return min(power_w for _, power_w in self._sums)

    @property
    def _most_w(self) -> float:
        return 2.0 * self.gpus_most_w + _NODE_REST_W if self.gpus_most_w else _NODE_MOST_W
