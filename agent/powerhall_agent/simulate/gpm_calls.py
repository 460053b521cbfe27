"""GPM samples of MIG instances: a sample is simulated time and the integral of the instance's activity."""

from typing import Any, Final

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.handles import handle_value, set_handle, target
from powerhall_agent.simulate.state import StateFile

__all__ = ["GpmCalls"]

_INVALID, _NOT_SUPPORTED = 2, 3
_METRIC_SM_UTIL: Final = 2
_FIRST_HANDLE: Final = 0x5000


class GpmCalls:
    """Keeps the samples that a caller allocated."""

    def __init__(self) -> None:
        """Start without samples."""
        self._samples: dict[int, tuple[int, float]] = {}
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

    def call_nvmlGpmSampleAlloc(self, sample: Any) -> int:  # noqa: ANN401, N802
        """Allocate a sample."""
        self._next += 1
        self._samples[self._next] = (0, 0.0)
        set_handle(sample, self._next)
        return 0

    def call_nvmlGpmSampleFree(self, sample: Any) -> int:  # noqa: ANN401, N802
        """Free a sample."""
        return 0 if self._samples.pop(handle_value(sample), None) is not None else _INVALID

    def call_nvmlGpmMetricsGet(self, request: Any) -> int:  # noqa: ANN401, N802
        """Compute metrics between two samples; only SM utilization is known."""
        asked = target(request)
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
