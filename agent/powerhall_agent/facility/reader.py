"""What the gateway asks of every protocol."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from powerhall.runtime.errors import ConfigError
from powerhall_agent.facility.gateway_settings import Device, ModbusDevice, RedfishDevice, SnmpDevice
from powerhall_agent.facility.points import DeviceMap

__all__ = ["Pacer", "ReadResult", "Reader", "missing_extra", "open_reader"]


@dataclass(slots=True)
class ReadResult:
    """What a device said: raw values by point, and why other points have none."""

    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """One device; used by one thread at a time."""

    def read(self) -> ReadResult:
        """Read every point once; raises Retryable when the device does not answer at all."""
        ...

    def close(self) -> None:
        """End the connection; the next read opens it again."""
        ...


class Pacer:
    """Keeps requests to one device at least `pause_s` apart."""

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s, self._clock = pause_s, clock
        self._next_s = clock()

    def wait(self) -> None:
        """Wait until the next request may go out."""
        left_s = self._next_s - self._clock()
        if left_s > 0:
            time.sleep(left_s)
        self._next_s = self._clock() + self._pause_s


def missing_extra(error: ImportError) -> ConfigError:
    """Say in one line which extra brings what could not be imported."""
    return ConfigError(
        f"gateway: needs the extra 'facility' (missing: {error.name}); pip install 'powerhall[facility]'"
    )


def open_reader(device: Device, points: DeviceMap) -> Reader:
    """Make the reader of a device; nothing is sent yet. A library that is not installed raises ConfigError."""
    try:
        if isinstance(device, ModbusDevice):
            from powerhall_agent.facility.modbus import ModbusReader

            return ModbusReader(device, points)
        if isinstance(device, RedfishDevice):
            from powerhall_agent.facility.redfish import RedfishReader

            return RedfishReader(device, points)
        from powerhall_agent.facility.snmp import SnmpReader

        assert isinstance(device, SnmpDevice)
        return SnmpReader(device, points)
    except ImportError as error:
        raise missing_extra(error) from None
