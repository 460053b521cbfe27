"""BACnet/IP (ISO 16484-5) by bacpypes3: present values with their status flags, many objects in one request."""

import asyncio
import logging
from typing import Annotated, Any, TypeAlias

import msgspec

from powerhall.runtime.errors import Retryable
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, MapFile, Point
from powerhall_agent.facility.reader import DeviceProtocol, Pacer, ReadResult, by_object

__all__ = ["BACNET", "BacnetDevice", "BacnetPoint", "BacnetReader"]

_Untyped: TypeAlias = Any
"""Objects of bacpypes3, whose classes are made at run time."""
_PER_REQUEST = 10
_VALUE, _FLAGS = "present-value", "status-flags"
_UNUSABLE = ("fault", "out-of-service")
"""Status flags with which a present value is no reading (ISO 16484-5, 12.2.11)."""
_OWN_ID = 4_194_302
"""Instance of the gateway's own device object: the highest that is none of "any"."""


class BacnetDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="bacnet"):
    """A BACnet/IP device; `member` replaces {member} in the instances of its objects."""

    bind: str = "0.0.0.0"  # noqa: S104 - requests leave by the address that reaches the device
    """Own address to send from, `HOST` or `HOST:PORT`; without a port a free one."""

    def __post_init__(self) -> None:
        """Refuse an address that is no HOST[:PORT]."""
        self.check_host()


class BacnetPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The present value of an object, such as `analog-input,3`."""

    object: Annotated[str, msgspec.Meta(pattern=r"^[a-z]+(-[a-z]+)*,([0-9]+|\{member\})$")]


class BacnetReader:
    """Reads one device; the event loop belongs to the reader and runs only while it reads."""

    def __init__(self, device: BacnetDevice, points: DeviceMap) -> None:
        """Prepare; nothing is sent yet."""
        from bacpypes3.apdu import ErrorRejectAbortNack
        from bacpypes3.ipv4.app import NormalApplication
        from bacpypes3.local.device import DeviceObject
        from bacpypes3.pdu import Address, IPv4Address

        logging.getLogger("bacpypes3").setLevel(logging.CRITICAL)
        self._refused: type[BaseException] = ErrorRejectAbortNack
        self._application, self._own, self._local = NormalApplication, DeviceObject, IPv4Address
        self._peer = Address(f"{device.host}:{device.port(47808)}")
        self._device, self._pacer = device, Pacer(device.pause_s)
        found = [point for point in points.points if isinstance(point, BacnetPoint)]
        places = ((point.object.replace("{member}", device.member), point.name) for point in found)
        self._names, self._twins = by_object(places)
        self._one_by_one = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._app: _Untyped = None

    def read(self) -> ReadResult:
        """Read all objects; raises Retryable when the device does not answer."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        answer = ReadResult()
        try:
            self._loop.run_until_complete(self._read(answer))
        except TimeoutError:
            self.close()
            raise Retryable(f"{self._device.address}: no answer within the timeout") from None
        except (OSError, ValueError) as error:
            self.close()
            raise Retryable(f"{self._device.address}: {type(error).__name__}: {error}") from None
        answer.repeat(self._twins)
        return answer

    def close(self) -> None:
        """End the application and its loop."""
        loop, app = self._loop, self._app
        self._loop = self._app = None
        if loop is None:
            return
        if app is not None:
            loop.run_until_complete(_closed(app))
        loop.close()

    async def _read(self, answer: ReadResult) -> None:
        if self._app is None:
            own = self._own(objectIdentifier=("device", _OWN_ID), objectName="powerhall", vendorIdentifier=999)
            bind = self._device.bind
            self._app = self._application(own, self._local(bind if ":" in bind else f"{bind}:0"))
            await asyncio.sleep(0)  # the socket is bound by a task
        objects = list(self._names)
        for start in range(0, len(objects), _PER_REQUEST):
            some = objects[start : start + _PER_REQUEST]
            if self._one_by_one or not await self._together(some, answer):
                self._one_by_one = True
                for entry in some:
                    await self._alone(entry, answer)

    async def _within(self, call: _Untyped) -> _Untyped:
        self._pacer.wait()
        return await asyncio.wait_for(call, self._device.timeout_s)

    async def _together(self, objects: list[str], answer: ReadResult) -> bool:
        """Read objects by ReadPropertyMultiple; False where the device cannot, or finds the answer too long."""
        wanted = [part for entry in objects for part in (entry, [_VALUE, _FLAGS])]
        try:
            found = await self._within(self._app.read_property_multiple(self._peer, wanted))
        except self._refused:
            return False
        shown: dict[str, dict[str, _Untyped]] = {}
        for identifier, name, _, value in found:
            shown.setdefault(f"{identifier[0]},{identifier[1]}", {})[str(name)] = value
        for entry in objects:
            values = shown.get(entry, {})
            self._note(entry, values.get(_VALUE), values.get(_FLAGS), answer)
        return True

    async def _alone(self, entry: str, answer: ReadResult) -> None:
        """Read an object by ReadProperty; status flags that it does not have are no problem."""
        try:
            value = await self._within(self._app.read_property(self._peer, entry, _VALUE))
        except self._refused as error:
            answer.problems[self._names[entry]] = f"{entry}: {error}"
            return
        try:
            flags = await self._within(self._app.read_property(self._peer, entry, _FLAGS))
        except self._refused:
            flags = None
        self._note(entry, value, flags, answer)

    def _note(self, entry: str, value: _Untyped, flags: _Untyped, answer: ReadResult) -> None:
        raised = [flag for flag in _UNUSABLE if flag in str(flags).split(";")] if flags is not None else []
        if raised:
            answer.problems[self._names[entry]] = f"{entry}: {' and '.join(raised)}"
        elif isinstance(value, bool) or not isinstance(value, int | float):
            why = f"{getattr(value, 'errorCode', value)}" if value is not None else "the device left it out"
            answer.problems[self._names[entry]] = f"{entry}: {why}"
        else:
            answer.values[self._names[entry]] = float(value)


async def _closed(app: _Untyped) -> None:
    app.close()
    await asyncio.sleep(0.01)  # its transport ends in a callback


BACNET = DeviceProtocol("bacnet", BacnetDevice, MapFile[BacnetPoint], BacnetReader)
