"""GPM samples: of a MIG instance the integral of its activity, of a whole GPU its load and counters (Hopper and later).

A simulated GPU's shares follow from its load: what real kernels do is not modelled.
"""

from typing import Any, Final

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.handles import handle_value, set_handle, target
from powerhall_agent.simulate.state import StateFile

__all__ = ["GpmCalls"]

_INVALID, _NOT_SUPPORTED = 2, 3
_METRIC_SM_UTIL: Final = 2
_HOPPER: Final = 9
_SHARES: Final = {2: 1.0, 3: 0.6, 5: 0.5, 6: 0.0, 7: 0.5, 8: 0.0, 9: 0.0}
"""Metrics in percent, as shares of the load."""
_DRAM: Final = 10
_RATES: Final = {20: at.C_PCIE_TX, 21: at.C_PCIE_RX, 60: at.C_NVLINK_RX, 61: at.C_NVLINK_TX}
"""Metrics in MiB/s, and their counters in bytes."""
_FIRST_HANDLE: Final = 0x5000


class GpmCalls:
    """Keeps the samples that a caller allocated."""

    def __init__(self) -> None:
        """Start without samples."""
        self._samples: dict[int, tuple[int, float]] = {}
        self._whole: dict[int, tuple[int, dict[int, float]]] = {}
        self._next = _FIRST_HANDLE

    def sample_mig(self, state: StateFile, base: int, _instance: int, instance_id: Any, sample: Any) -> int:  # noqa: ANN401
        """Take a sample of the MIG instance with this GPU instance id."""
        wanted = getattr(instance_id, "value", instance_id)
        for row in range(state.ints[base + at.M_COUNT]):
            word = base + at.M_BASE + at.M_WORDS * row
            if state.ints[word] == wanted:
                self._samples[handle_value(sample)] = (state.ints[at.H_SIM_TIME_NS], state.doubles[word + 4])
                return 0
        return _INVALID

    @staticmethod
    def support(state: StateFile, base: int, _instance: int, out: Any) -> int:  # noqa: ANN401
        """Say whether the GPU has GPM."""
        target(out).isSupportedDevice = int(_has_gpm(state, base))
        return 0

    def sample(self, state: StateFile, base: int, _instance: int, sample: Any) -> int:  # noqa: ANN401
        """Take a sample of a whole GPU."""
        if not _has_gpm(state, base):
            return _NOT_SUPPORTED
        load, doubles = state.doubles[base + at.C_UTIL], state.doubles
        values = {metric: 100.0 * load * share for metric, share in _SHARES.items()}
        values[_DRAM] = 100.0 * doubles[base + at.C_MEM_UTIL]
        values |= {metric: doubles[base + word] for metric, word in _RATES.items()}
        self._whole[handle_value(sample)] = (state.ints[at.H_SIM_TIME_NS], values)
        return 0

    def call_nvmlGpmSampleAlloc(self, sample: Any) -> int:  # noqa: ANN401, N802
        """Allocate a sample."""
        self._next += 1
        self._samples[self._next] = (0, 0.0)
        set_handle(sample, self._next)
        return 0

    def call_nvmlGpmSampleFree(self, sample: Any) -> int:  # noqa: ANN401, N802
        """Free a sample."""
        self._whole.pop(handle_value(sample), None)
        return 0 if self._samples.pop(handle_value(sample), None) is not None else _INVALID

    def call_nvmlGpmMetricsGet(self, request: Any) -> int:  # noqa: ANN401, N802
        """Compute metrics between two samples; of an instance only SM utilization is known."""
        asked = target(request)
        if handle_value(asked.sample2) in self._whole:
            return self._whole_metrics(asked)
        first = self._samples.get(handle_value(asked.sample1))
        second = self._samples.get(handle_value(asked.sample2))
        if first is None or second is None:
            return _INVALID
        for row in range(asked.numMetrics):
            metric = asked.metrics[row]
            known = metric.metricId == _METRIC_SM_UTIL and second[0] > first[0]
            metric.nvmlReturn = 0 if known else _NOT_SUPPORTED
            metric.value = 100.0 * (second[1] - first[1]) / (second[0] - first[0]) if known else 0.0
        return 0

    def _whole_metrics(self, asked: Any) -> int:  # noqa: ANN401
        first = self._whole.get(handle_value(asked.sample1))
        second = self._whole[handle_value(asked.sample2)]
        if first is None:
            return _INVALID
        passed_s = (second[0] - first[0]) / 1e9
        for row in range(asked.numMetrics):
            metric = asked.metrics[row]
            known = metric.metricId in second[1] and passed_s > 0
            metric.nvmlReturn = 0 if known else _NOT_SUPPORTED
            if known and metric.metricId in _RATES:
                metric.value = (second[1][metric.metricId] - first[1][metric.metricId]) / passed_s / (1 << 20)
            elif known:
                metric.value = second[1][metric.metricId]
        return 0


def _has_gpm(state: StateFile, base: int) -> bool:
    return state.ints[base + at.getter_word("ARCHITECTURE") + 1] >= _HOPPER
