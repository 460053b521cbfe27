"""Sets and reads back the caps of the GPUs of this node through NVML.

pynvml's `nvmlDeviceSetPowerManagementLimit_v2` drops the return code (seen in nvidia-ml-py 13.615), so the first
version of the setter is used, and every write is read back. NVML takes milliwatts. Limits do not survive a driver
reload, after which only a new process can use the driver: `DriverGone` ends the capper and systemd starts it anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pynvml

from powerhall.lease import GpuCap
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall_agent.nvml.codes import Action, action
from powerhall_agent.nvml.driver import Driver, Gpu

__all__ = ["CapsNotHeld", "DriverGone", "Limiter", "NvmlLimiter", "Range"]

_TOLERANCE_W = 1.0


class DriverGone(PowerhallError):  # noqa: N818 - says what happened
    """The driver that this process had opened is no longer loaded."""


class CapsNotHeld(PowerhallError):  # noqa: N818 - says what happened
    """Some GPUs do not hold their caps; `not_allowed` is true where the driver forbids this user to set them."""

    def __init__(self, text: str, *, not_allowed: bool = False) -> None:
        super().__init__(text)
        self.not_allowed = not_allowed


@dataclass(frozen=True, slots=True)
class Range:
    """The power limits that a GPU accepts, in W."""

    min_w: float
    max_w: float


class Limiter(Protocol):
    """Sets and reads the caps of the GPUs of a node."""

    def ranges(self) -> dict[int, Range]:
        """Return the accepted range per GPU number."""

    def read(self) -> tuple[GpuCap, ...]:
        """Return the caps in force."""

    def clocks_mhz(self, gpus: Sequence[int]) -> dict[int, float]:
        """Return the SM clock of these GPUs; one that does not answer is left out."""

    def apply(self, caps: tuple[GpuCap, ...]) -> None:
        """Set caps and read them back; raises CapsNotHeld naming the GPUs that do not hold theirs."""


class NvmlLimiter:
    """The GPUs that the driver lists; simulated ones where the library has been replaced."""

    def __init__(self, driver: Driver) -> None:
        self._gpus: dict[int, Gpu] = {gpu.index: gpu for gpu in driver.gpus}

    def ranges(self) -> dict[int, Range]:
        """Return the accepted range per GPU number; a GPU that does not answer is left out."""
        found: dict[int, Range] = {}
        for index, gpu in self._gpus.items():
            try:
                low, high = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu.handle)
            except pynvml.NVMLError:
                continue
            found[index] = Range(low / 1000, high / 1000)
        return found

    def read(self) -> tuple[GpuCap, ...]:
        """Return the requested power limits; NVML has no way to read a clock lock back. May raise DriverGone."""
        caps = []
        for index, gpu in self._gpus.items():
            try:
                caps.append(GpuCap(index, pynvml.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000))
            except pynvml.NVMLError as error:
                if action(error.value) in (Action.REINIT, Action.RESPAWN):
                    raise DriverGone(str(error)) from None
        return tuple(caps)

    def clocks_mhz(self, gpus: Sequence[int]) -> dict[int, float]:
        """Return the SM clock of these GPUs; one that does not answer is left out."""
        found = {}
        for index in gpus:
            try:
                handle = self._gpus[index].handle
                found[index] = float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
            except (KeyError, pynvml.NVMLError):
                continue
        return found

    def apply(self, caps: tuple[GpuCap, ...]) -> None:
        """Set each cap and read it back; a GPU that fails does not stop the others."""
        failed, not_allowed = [], False
        for cap in caps:
            try:
                self._set(self._gpus[cap.gpu], cap)
            except KeyError:
                failed.append(f"GPU {cap.gpu}: not there")
            except (pynvml.NVMLError, Rejected) as error:
                failed.append(f"GPU {cap.gpu}: {error}")
                not_allowed |= isinstance(error, pynvml.NVMLError) and action(error.value) is Action.NO_PERMISSION
        if failed:
            raise CapsNotHeld("caps not held: " + "; ".join(failed), not_allowed=not_allowed)

    def _set(self, gpu: Gpu, cap: GpuCap) -> None:
        if cap.sm_clock_mhz is None:
            self._unlock(gpu)
        else:
            pynvml.nvmlDeviceSetGpuLockedClocks(gpu.handle, int(cap.sm_clock_mhz), int(cap.sm_clock_mhz))
        if cap.power_limit_w is None:
            return
        pynvml.nvmlDeviceSetPowerManagementLimit(gpu.handle, round(cap.power_limit_w * 1000))
        held_w = pynvml.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000
        if abs(held_w - cap.power_limit_w) > _TOLERANCE_W:
            raise Rejected(f"power limit reads {held_w:.0f} W after {cap.power_limit_w:.0f} W was set")

    @staticmethod
    def _unlock(gpu: Gpu) -> None:
        try:
            pynvml.nvmlDeviceResetGpuLockedClocks(gpu.handle)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
            return
