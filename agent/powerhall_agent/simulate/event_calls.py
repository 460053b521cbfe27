"""Event sets of the simulated driver: readers of the state file's ring of events, each with its own cursor."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.handles import handle_value, set_handle, set_member, target
from powerhall_agent.simulate.state import StateFile

__all__ = ["EventCalls"]

_INVALID, _NOT_SUPPORTED, _NOT_FOUND, _TIMEOUT = 2, 3, 6, 10
_POLL_S: Final = 0.2
_FIRST_HANDLE: Final = 0x7000


@dataclass(slots=True)
class _EventSet:
    cursors: list[int]
    masks: dict[int, int] = field(default_factory=dict)
    """Event types by GPU handle; key -1 for system events."""
    xid: int = 0
    """The XID of the operational event that was waited for last."""


class EventCalls:
    """Answers the calls about event sets; `handle_of` names the GPU of a node."""

    def __init__(
        self,
        states: Sequence[StateFile],
        monotonic_ns: Callable[[], int],
        sleep: Callable[[float], None],
        handle_of: Callable[[StateFile, int], int],
    ) -> None:
        """Start without event sets."""
        self._states, self._now_ns, self._sleep, self._handle_of = states, monotonic_ns, sleep, handle_of
        self._sets: dict[int, _EventSet] = {}
        self._next = _FIRST_HANDLE

    def _create(self) -> int:
        self._next += 1
        self._sets[self._next] = _EventSet([state.ints[at.H_EVENT_HEAD] for state in self._states])
        return self._next

    def call_nvmlEventSetCreate(self, event_set: Any) -> int:  # noqa: ANN401, N802
        """Make an event set that sees events from now on."""
        set_handle(event_set, self._create())
        return 0

    def call_nvmlEventSetFree(self, event_set: Any) -> int:  # noqa: ANN401, N802
        """Free an event set."""
        return 0 if self._sets.pop(handle_value(event_set), None) is not None else _INVALID

    def call_nvmlDeviceRegisterEvents(self, device: Any, types: Any, event_set: Any) -> int:  # noqa: ANN401, N802
        """Watch a GPU; types that it does not support are refused."""
        found = self._sets.get(handle_value(event_set))
        handle = handle_value(device)
        state, base = self._place(handle)
        if found is None or state is None:
            return _INVALID
        if types.value & ~state.ints[base + at.C_EVENT_TYPES]:
            return _NOT_SUPPORTED
        found.masks[handle] = found.masks.get(handle, 0) | types.value
        return 0

    def _place(self, handle: int) -> tuple[StateFile | None, int]:
        for state, gpu in self._gpus():
            if self._handle_of(state, gpu) == handle:
                return state, state.base(gpu)
        return None, 0

    def call_nvmlEventSetWait_v2(self, event_set: Any, data: Any, timeout_ms: Any) -> int:  # noqa: ANN401, N802
        """Wait for the next event of a watched GPU."""
        found = self._sets.get(handle_value(event_set))
        if found is None:
            return _INVALID
        event = self._wait(found, timeout_ms.value)
        if event is None:
            return _TIMEOUT
        handle, kind, value, instance = event
        out = target(data)
        set_handle(out, handle)
        out.eventType, out.eventData = kind, value & 0xFFFFFFFFFFFFFFFF
        out.gpuInstanceId = out.computeInstanceId = instance & 0xFFFFFFFF
        return 0

    def call_nvmlEventSetRegisterGpuOperationalEvents_v1(self, event_set: Any, config: Any) -> int:  # noqa: ANN401, N802
        """Watch the operational events of a GPU, by its UUID."""
        found = self._sets.get(handle_value(event_set))
        uuid = target(config).uuid
        handles = [self._handle_of(*place) for place in self._gpus() if place[0].text(place[1], at.T_UUID) == uuid]
        if found is None or not handles:
            return _INVALID
        found.masks[handles[0]] = found.masks.get(handles[0], 0) | at.OPERATIONAL_EVENT
        return 0

    def call_nvmlEventSetWait_v3(self, event_set: Any, params: Any) -> int:  # noqa: ANN401, N802
        """Wait for the next event of either kind."""
        found, out = self._sets.get(handle_value(event_set)), target(params)
        if found is None:
            return _INVALID
        found.xid = 0
        event = self._wait(found, out.timeoutMs)
        if event is None:
            return _TIMEOUT
        handle, kind, value, _ = event
        out.uuid = next(
            state.text(gpu, at.T_UUID) for state, gpu in self._gpus() if self._handle_of(state, gpu) == handle
        ).encode()
        out.dataType = int(kind == at.OPERATIONAL_EVENT)
        if not out.dataType:
            out.eventType, out.eventData = kind, value & 0xFFFFFFFFFFFFFFFF
            return 0
        out.sourceModule, out.logLevel = b"GSP", 50
        out.moduleEventCode, out.severity, found.xid = value & 0xFFFFFFFF, value >> 32 & 0xFF, value >> 40
        return 0

    def call_nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1(  # noqa: N802
        self,
        event_set: Any,  # noqa: ANN401
        params: Any,  # noqa: ANN401
    ) -> int:
        """Return the XID of the operational event that was waited for last."""
        found = self._sets.get(handle_value(event_set))
        if found is None or not found.xid:
            return _NOT_FOUND
        target(params).xidCode = found.xid
        return 0

    def _gpus(self) -> Iterator[tuple[StateFile, int]]:
        for state in self._states:
            for gpu in range(state.gpus):
                yield state, gpu

    def _wait(self, watched: _EventSet, timeout_ms: int) -> tuple[int, int, int, int] | None:
        deadline_ns = self._now_ns() + timeout_ms * 1_000_000
        while True:
            event = next(self._pending(watched), None)
            if event is not None:
                return event
            left_s = (deadline_ns - self._now_ns()) / 1e9
            if left_s <= 0:
                return None
            self._sleep(min(_POLL_S, left_s))

    def _pending(self, watched: _EventSet) -> Iterator[tuple[int, int, int, int]]:
        for number, state in enumerate(self._states):
            head = state.ints[at.H_EVENT_HEAD]
            watched.cursors[number] = max(watched.cursors[number], head - at.EVENT_SLOTS)
            while watched.cursors[number] < head:
                word = at.H_EVENTS + at.EVENT_WORDS * (watched.cursors[number] % at.EVENT_SLOTS)
                watched.cursors[number] += 1
                gpu, kind, value, instance = state.ints[word : word + 4]
                handle = -1 if gpu < 0 else self._handle_of(state, gpu)
                if watched.masks.get(handle, 0) & kind:
                    yield handle, kind, value, instance

    def call_nvmlSystemEventSetCreate(self, request: Any) -> int:  # noqa: ANN401, N802
        """Make a set of system events (driver bind and unbind)."""
        set_member(target(request), "set", self._create())
        return 0

    def call_nvmlSystemEventSetFree(self, request: Any) -> int:  # noqa: ANN401, N802
        """Free a set of system events."""
        return 0 if self._sets.pop(handle_value(target(request).set), None) is not None else _INVALID

    def call_nvmlSystemRegisterEvents(self, request: Any) -> int:  # noqa: ANN401, N802
        """Watch system events."""
        asked = target(request)
        found = self._sets.get(handle_value(asked.set))
        if found is None:
            return _INVALID
        found.masks[-1] = found.masks.get(-1, 0) | asked.eventTypes
        return 0

    def call_nvmlSystemEventSetWait(self, request: Any) -> int:  # noqa: ANN401, N802
        """Wait for the next system event."""
        asked = target(request)
        found = self._sets.get(handle_value(asked.set))
        if found is None:
            return _INVALID
        event = self._wait(found, asked.timeoutms)
        asked.numEvent = 0
        if event is None:
            return _TIMEOUT
        asked.data[0].eventType, asked.data[0].gpuId = event[1], event[2] & 0xFFFFFFFF
        asked.numEvent = 1
        return 0
