"""A stand-in for the loaded NVML library: put in the place of `pynvml.nvmlLib` before `nvmlInit`.

All of pynvml's own code runs unmodified on top of it; it answers from the state files of one or more simulated nodes.
pynvml passes out-parameters with `byref`, whose `_obj` is the caller's structure. Devices of several nodes are numbered
one after the other. Functions are found by name; one that the simulated driver does not have raises AttributeError,
which pynvml turns into "function not found".
"""

import ctypes
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.answers import DEVICE_CALLS
from powerhall_agent.simulate.event_calls import EventCalls
from powerhall_agent.simulate.gpm_calls import GpmCalls
from powerhall_agent.simulate.handles import set_handle, target
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import advance_by_clock

__all__ = ["SimulatedLibrary"]

_HANDLE_BASE: Final = 0x10000
_HANDLE_STEP: Final = 16
_STEP_NS: Final = 20_000_000
"""A file without a world process is moved on when a reader finds it older than this."""
_NOT_SUPPORTED, _NOT_FOUND, _INVALID, _UNINITIALIZED = 3, 6, 2, 1
_ERRORS: Final = {0: b"Success", 1: b"Uninitialized", 3: b"Not Supported", 9: b"Driver Not Loaded", 15: b"GPU is lost"}

Reference = Any
"""The type of the result of `ctypes.byref`; the typing stubs do not expose its `_obj`."""


class SimulatedLibrary:
    """Answers NVML calls from state files; `monotonic_ns` and `sleep` are passed in for tests."""

    def __init__(
        self,
        states: Sequence[StateFile],
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Number the GPUs of all nodes one after the other."""
        self.states = list(states)
        self._places = [
            (state, state.base(gpu), gpu, position)
            for position, state in enumerate(self.states)
            for gpu in range(state.gpus)
        ]
        self._now_ns, self._sleep = monotonic_ns, sleep
        self._generations: list[int] = []
        self._initialised = 0
        self._gpm = GpmCalls()
        self._parts = (EventCalls(self.states, monotonic_ns, sleep, self.handle_of), self._gpm)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Build the function of this name at its first use."""
        if not name.startswith("nvml") or self._missing(name):
            raise AttributeError(name)
        function = self._find(name)
        self.__dict__[name] = function
        return function

    def _missing(self, name: str) -> bool:
        if name not in at.OPTIONAL_SYMBOLS:
            return False
        bit = 1 << at.OPTIONAL_SYMBOLS.index(name)
        return any(state.ints[at.H_MISSING_SYMBOLS] & bit for state in self.states)

    def _find(self, name: str) -> Callable[..., Any]:
        of_gpm: dict[str, Callable[..., int]] = {
            "nvmlGpmMigSampleGet": self._gpm.sample_mig,
            "nvmlGpmSampleGet": self._gpm.sample,
            "nvmlGpmQueryDeviceSupport": self._gpm.support,
        }
        answer = of_gpm.get(name) or DEVICE_CALLS.get(name)
        if answer is not None:
            return functools.partial(self._device_call, answer)
        own = getattr(type(self), f"call_{name}", None)
        if own is not None:
            return functools.partial(own, self)
        for part in self._parts:
            call = getattr(part, f"call_{name}", None)
            if call is not None:
                return functools.partial(self._guarded, call)
        raise AttributeError(name)

    def _guarded(self, call: Callable[..., int], *args: Reference) -> int:
        return self._driver_return() or call(*args)

    def _driver_return(self) -> int:
        """Return the code that a call on no particular GPU gets: of the first node whose driver fails."""
        codes = (self._state_return(state, position) for position, state in enumerate(self.states))
        return next((code for code in codes if code), 0)

    def _state_return(self, state: StateFile, position: int) -> int:
        if not self._generations:
            return _UNINITIALIZED
        code = state.ints[at.H_DRIVER_RETURN]
        if code:
            return code
        return 0 if state.ints[at.H_GENERATION] == self._generations[position] else _UNINITIALIZED

    def _device_call(self, answer: Callable[..., int], handle: Reference, *args: Reference) -> int:
        value = ctypes.c_void_p.from_buffer(target(handle)).value or 0
        number, instance = divmod(value - _HANDLE_BASE, _HANDLE_STEP)
        if not 0 <= number < len(self._places):
            return _INVALID
        state, base, _, position = self._places[number]
        return self._check(state, base, position) or answer(state, base, instance - 1, *args)

    def _check(self, state: StateFile, base: int, position: int) -> int:
        """Return the code that the driver or the GPU forces on a call; waits where a fault makes calls slow."""
        code = self._state_return(state, position)
        if code:
            return code
        ints, now_ns = state.ints, self._now_ns()
        if ints[at.H_WORLD_PID] == 0 and now_ns - ints[at.H_STEPPED_NS] > _STEP_NS:
            advance_by_clock(state, now_ns)
        delay_ns = ints[at.H_LATENCY_NS] + ints[base + at.C_LATENCY_NS]
        if delay_ns:
            self._sleep(delay_ns / 1e9)
        while ints[base + at.C_HANG_UNTIL_NS] > self._now_ns():
            self._sleep(0.005)
        return ints[base + at.C_FORCE_RETURN]

    def handle_of(self, state: StateFile, gpu: int) -> int:
        """Return the opaque handle of a GPU of one of the nodes."""
        before = sum(other.gpus for other in self.states[: self.states.index(state)])
        return _HANDLE_BASE + _HANDLE_STEP * (before + gpu)

    def call_nvmlInitWithFlags(self, _flags: object) -> int:  # noqa: N802
        """Initialise; remembers the driver generation."""
        code = next((c for c in (state.ints[at.H_DRIVER_RETURN] for state in self.states) if c), 0)
        if not code:
            self._generations = [state.ints[at.H_GENERATION] for state in self.states]
            self._initialised += 1
        return code

    def call_nvmlShutdown(self) -> int:  # noqa: N802
        """Shut down; takes effect at the call that matches the first initialisation."""
        if not self._generations:
            return _UNINITIALIZED
        self._initialised -= 1
        if self._initialised == 0:
            self._generations = []
        return 0

    def call_nvmlErrorString(self, code: int) -> bytes:  # noqa: N802
        """Return the text of a return code."""
        return _ERRORS.get(code, b"Unknown Error")

    def call_nvmlSystemGetDriverVersion(self, buffer: Any, _length: object) -> int:  # noqa: ANN401, N802
        """Write the driver's version."""
        buffer.value = self.states[0].driver_version.encode()
        return self._driver_return()

    def call_nvmlSystemGetNVMLVersion(self, buffer: Any, _length: object) -> int:  # noqa: ANN401, N802
        """Write the library's version."""
        buffer.value = f"13.{self.states[0].driver_version}".encode()
        return self._driver_return()

    def call_nvmlDeviceGetCount_v2(self, count: Reference) -> int:  # noqa: N802
        """Count the GPUs of all nodes."""
        target(count).value = len(self._places)
        return self._driver_return()

    def call_nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Reference) -> int:  # noqa: ANN401, N802
        """Find a GPU by its number."""
        number = getattr(index, "value", index)
        if not 0 <= number < len(self._places):
            return self._driver_return() or _INVALID
        state, base, _, position = self._places[number]
        code = self._check(state, base, position)
        if not code:
            set_handle(device, _HANDLE_BASE + _HANDLE_STEP * number)
        return code

    def _handle_by_text(self, place: tuple[int, int], text: bytes, device: Reference) -> int:
        code = self._driver_return()
        if code:
            return code
        for number, (state, base, gpu, position) in enumerate(self._places):
            if state.text(gpu, place).upper() == text.decode().upper():
                code = self._check(state, base, position)
                if not code:
                    set_handle(device, _HANDLE_BASE + _HANDLE_STEP * number)
                return code
        return _NOT_FOUND

    def call_nvmlDeviceGetHandleByPciBusId_v2(self, bus_id: Any, device: Reference) -> int:  # noqa: ANN401, N802
        """Find a GPU by its PCI bus id."""
        return self._handle_by_text(at.T_BUS_ID, bus_id.value, device)

    def call_nvmlDeviceGetHandleByUUID(self, uuid: Any, device: Reference) -> int:  # noqa: ANN401, N802
        """Find a GPU by its UUID."""
        return self._handle_by_text(at.T_UUID, uuid.value, device)

    def call_nvmlDeviceGetIndex(self, handle: Reference, index: Reference) -> int:  # noqa: N802
        """Return the number of a GPU."""
        value = ctypes.c_void_p.from_buffer(target(handle)).value or 0
        target(index).value = (value - _HANDLE_BASE) // _HANDLE_STEP
        return self._driver_return()

    def call_nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self,
        handle: Reference,
        index: Any,  # noqa: ANN401
        device: Reference,
    ) -> int:
        """Find a MIG instance of a GPU."""
        value = ctypes.c_void_p.from_buffer(target(handle)).value or 0
        number = (value - _HANDLE_BASE) // _HANDLE_STEP
        if not 0 <= number < len(self._places):
            return _INVALID
        state, base, _, position = self._places[number]
        code = self._check(state, base, position)
        if code:
            return code
        if index.value >= state.ints[base + at.M_COUNT]:
            return _NOT_FOUND
        set_handle(device, value + 1 + index.value)
        return 0
