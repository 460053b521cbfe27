"""Waits for the driver's events in a thread of its own: XID, ECC, MIG changes, lost GPUs, driver bind and unbind.

Handles are mapped to GPU numbers at registration, because a lost GPU does not answer. A driver without a kind of event
refuses it at registration; a driver without event sets is watched by polling alone. Drivers that have operational
events report them too, by a wait of their own.
"""

import ctypes
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from powerhall.runtime.log import Log
from powerhall_agent.nvml.codes import UNKNOWN, Action, action
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.operational_events import OPERATIONAL, described, register, text_of, wait

__all__ = ["DriverEvent", "EventWatch"]

_log = Log(quiet=True)
_WAIT_MS: Final = 1000
_KINDS: Final = {
    0x2: ("ecc_double_bit", 2, "double-bit memory error"),
    0x8: ("xid", 2, "XID error"),
    0x100: ("mig_change", 0, "MIG configuration changed"),
    0x200: ("ecc_single_bit_storm", 1, "storm of single-bit memory errors"),
    0x400: ("dram_retirement", 1, "memory row or page retired"),
    0x800: ("dram_retirement_failure", 2, "memory row or page could not be retired"),
    0x1000: ("poison", 1, "non-fatal memory poison"),
    0x2000: ("poison_fatal", 2, "fatal memory poison"),
    0x4000: ("gpu_unavailable", 2, "GPU unavailable"),
    0x8000: ("recovery_action", 1, "the driver asks for a recovery action"),
}
_WANTED: Final = sum(_KINDS)
_UNBIND, _BIND = 0x1, 0x2
_SYSTEM: Final = {_UNBIND: ("driver_unbind", 1, "driver unbound"), _BIND: ("driver_bind", 0, "driver bound")}
_TIMEOUT: Final = 10
_FAILURES: Final = 3
_LOST_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class DriverEvent:
    """Something that the driver reported; `gpu` is None for the driver itself."""

    kind: str
    gpu: int | None
    code: int
    detail: str
    severity: int


class EventWatch:
    """Registers for the events of one driver session and collects them in `events`."""

    def __init__(self, driver: Driver, gpus: Sequence[Gpu]) -> None:
        """Register and start waiting; a driver without event sets is watched by polling alone."""
        self.events: queue.SimpleQueue[DriverEvent] = queue.SimpleQueue()
        self.watched = 0
        self._stop = threading.Event()
        self._driver = driver
        self._by_handle: dict[int, int] = {}
        self._by_uuid: dict[str, int] = {}
        self._operational = False
        """Whether the driver gives operational events, and so both kinds by the third wait."""
        self._data = pynvml.c_nvmlEventData_t()
        self._set = _attempt(pynvml.nvmlEventSetCreate) if driver.has("nvmlEventSetWait_v2") else None
        self._system = self._register_system() if driver.has("nvmlSystemEventSetCreate") else None
        for gpu in gpus:
            self.register(gpu)
        self._thread = threading.Thread(target=self._loop, name="driver-events", daemon=True)
        if self._set is not None or self._system is not None:
            self._thread.start()

    def register(self, gpu: Gpu) -> None:
        """Watch a GPU, as far as it supports events."""
        self._by_handle[_number(gpu.handle)] = gpu.index
        self._by_uuid[gpu.uuid] = gpu.index
        if self._set is None:
            return
        self._operational |= register(self._driver, self._set, gpu)
        try:
            wanted = _WANTED & pynvml.nvmlDeviceGetSupportedEventTypes(gpu.handle)
            if wanted:
                pynvml.nvmlDeviceRegisterEvents(gpu.handle, wanted, self._set)
                self.watched += 1
        except pynvml.NVMLError:
            return

    def _register_system(self) -> Any:  # noqa: ANN401
        created = _attempt(pynvml.nvmlSystemEventSetCreate, pynvml.nvmlSystemEventSetCreateRequest_v1)
        if created is None:
            return None
        _attempt(pynvml.nvmlSystemRegisterEvents, pynvml.nvmlSystemRegisterEventRequest_v1, _UNBIND | _BIND, created)
        return created

    def _loop(self) -> None:
        try:
            self._wait()
        except Exception as error:  # noqa: BLE001 - told as an event; polling goes on
            _log.exception("driver_events_failed")
            self.events.put(DriverEvent("events_ended", None, UNKNOWN, f"{type(error).__name__}: {error}", 1))

    def _wait(self) -> None:
        buffer = (pynvml.c_nvmlSystemEventData_v1_t * 4)()
        failures = 0
        while not self._stop.is_set() and (self._set is not None or self._system is not None):
            try:
                if self._set is not None:
                    self._wait_gpu(_WAIT_MS)
                failures = 0
            except pynvml.NVMLError as error:
                lost = action(error.value) is Action.QUARANTINE  # one GPU of the set is lost; the others still report
                failures += not lost
                if failures >= _FAILURES or action(error.value) is Action.REINIT:
                    self._ended("GPU", error.value)
                    self._set = None
                self._stop.wait(_LOST_PAUSE_S if lost else _WAIT_MS / 1000)
            try:
                if self._system is not None:
                    self._wait_system(buffer, 0 if self._set is not None else _WAIT_MS)
            except pynvml.NVMLError as error:
                self._ended("driver", error.value)
                self._system = None

    def _ended(self, what: str, code: int) -> None:
        """Report that a kind of events has ended; polling still detects what they would have reported."""
        self.events.put(DriverEvent("events_ended", None, code, f"the driver reports no more {what} events", 1))

    def _wait_gpu(self, timeout_ms: int) -> None:
        """Wait by the bare library call: most waits time out, for which pynvml raises an exception."""
        if self._operational:
            self._wait_either(timeout_ms)
            return
        data = self._data
        code = pynvml.nvmlLib.nvmlEventSetWait_v2(self._set, ctypes.byref(data), ctypes.c_uint(timeout_ms))
        if code == _TIMEOUT:
            return
        if code:
            raise pynvml.NVMLError(code)
        self._put(self._by_handle.get(_number(data.device)), data.eventType, int(data.eventData))

    def _wait_either(self, timeout_ms: int) -> None:
        """Wait for operational events and those of older drivers."""
        code, found = wait(self._set, timeout_ms)
        if code == _TIMEOUT:
            return
        if code and action(code) is Action.UNSUPPORTED:
            self._operational = False  # the wait of older drivers goes on
            return
        if code:
            raise pynvml.NVMLError(code)
        gpu = self._by_uuid.get(text_of(found, "uuid"))
        operational = described(self._set, found)
        if operational is None:
            self._put(gpu, found.eventType, int(found.eventData))
            return
        number, text, severity = operational
        self.events.put(DriverEvent(OPERATIONAL, gpu, number, text, severity))

    def _put(self, gpu: int | None, event_type: int, number: int) -> None:
        kind, severity, text = _KINDS.get(event_type, (f"event_{event_type:#x}", 1, "driver event"))
        self.events.put(DriverEvent(kind, gpu, number, f"{text} {number}" if kind == "xid" else text, severity))

    def _wait_system(self, buffer: Any, timeout_ms: int) -> None:  # noqa: ANN401
        found = pynvml.nvmlSystemEventSetWait(
            pynvml.nvmlSystemEventSetWaitRequest_v1, self._system, timeout_ms, buffer, len(buffer)
        )
        for entry in found:
            kind, severity, text = _SYSTEM.get(entry["eventType"], ("system_event", 1, "driver event"))
            self.events.put(DriverEvent(kind, None, int(entry["gpuId"]), text, severity))
            if entry["eventType"] == _UNBIND:
                self._stop.set()  # the driver must be freed now: do not wait again

    def close(self) -> None:
        """Stop waiting and free the event sets; takes at most one wait."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.5)
        if self._set is not None:
            _attempt(pynvml.nvmlEventSetFree, self._set)
        if self._system is not None:
            _attempt(pynvml.nvmlSystemEventSetFree, pynvml.nvmlSystemEventSetFreeRequest_v1, self._system)
        self._set = self._system = None


def _attempt(call: Any, *args: object) -> Any:  # noqa: ANN401
    """Make a call; None where this driver has no such events."""
    try:
        return call(*args)
    except pynvml.NVMLError:
        return None


def _number(handle: Any) -> int:  # noqa: ANN401
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
