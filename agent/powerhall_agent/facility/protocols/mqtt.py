"""MQTT by aiomqtt: the newest message of each topic, from a subscription that is kept in a thread of its own.

The other protocols ask; here the devices of a site's bus send when they like. A read takes what has come since, and a
topic that was silent for too long has no value. A retained message has no known age, so it is no reading.
"""

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.files import check_regular
from powerhall.runtime.settings import Secret
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, MapFile, Point
from powerhall_agent.facility.reader import DeviceProtocol, ReadResult
from powerhall_agent.redfish.values import number, pointed

__all__ = ["MQTT", "MqttDevice", "MqttPoint", "MqttReader"]

_Untyped: TypeAlias = Any
"""Objects of aiomqtt."""
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_MOST_BYTES: Final = 64 * 1024
_AGAIN_S: Final = (1.0, 30.0)
"""Shortest and longest wait before the broker is tried again."""


class MqttDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="mqtt"):
    """What a device sends to a broker; `address` is the broker's, `member` replaces {member} in the topics."""

    silent_after_s: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 60.0
    """A topic without a message for this long has no value."""
    tls: bool = True
    """Connect by TLS (port 8883); without it port 1883."""
    ca_file: str = ""
    """Certificate authority of the broker's certificate; empty uses the system's."""
    user: str = ""
    """User; together with `password_file`."""
    password_file: str = ""
    """File with the password."""

    def __post_init__(self) -> None:
        """Refuse half of a login, and a password over a network without TLS."""
        self.check_host()
        if bool(self.user) != bool(self.password_file):
            raise ValueError(f"{self.name}: user and password_file go together")
        if self.user and not self.tls and self.host not in _LOOPBACK:
            raise ValueError(f"{self.name}: tls: must be true where there is a password")


class MqttPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number that is sent to a topic: the whole message, or what a JSON pointer names in it."""

    topic: Annotated[str, msgspec.Meta(pattern=r"^[^+#\x00]+$", max_length=1024)]
    pointer: Annotated[str, msgspec.Meta(pattern="^(/.*)?$")] = ""


@dataclass(slots=True)
class _Newest:
    """The newest message of a topic: its body, and when it came by the monotonic clock."""

    body: bytes = b""
    at_s: float = 0.0
    retained: bool = False


@dataclass(slots=True)
class _Subscription:
    """What the thread and the reads share."""

    newest: dict[str, _Newest] = field(default_factory=dict)
    problem: str = "no connection yet"
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False

    def note(self, problem: str) -> None:
        with self.changed:
            self.problem = problem
            self.changed.notify_all()

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        with self.changed:
            self.newest[topic] = _Newest(body, time.monotonic(), retained)
            self.changed.notify_all()


class MqttReader:
    """Reads the topics of one device; a thread keeps the subscription from the first read on."""

    def __init__(self, device: MqttDevice, points: DeviceMap) -> None:
        """Prepare; nothing is sent yet."""
        import aiomqtt

        logging.getLogger("mqtt").setLevel(logging.CRITICAL)
        self._client: _Untyped = aiomqtt.Client
        self._device = device
        self._points = [
            (point.topic.replace("{member}", device.member), point)
            for point in points.points
            if isinstance(point, MqttPoint)
        ]
        self._shared = _Subscription()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def read(self) -> ReadResult:
        """Return the newest messages; raises Retryable while the broker does not answer."""
        if self._thread is None:
            self._start()
        shared, answer = self._shared, ReadResult()
        with shared.changed:
            if shared.problem:
                raise Retryable(f"{self._device.address}: {shared.problem}")
            newest = dict(shared.newest)
        for topic, point in self._points:
            found = self._number(newest.get(topic), point)
            if isinstance(found, float):
                answer.values[point.name] = found
            else:
                answer.problems[point.name] = f"{topic}: {found}"
        return answer

    def close(self) -> None:
        """End subscription and thread; the next read begins again."""
        thread, loop, task = self._thread, self._loop, self._task
        self._shared.ended = True
        self._thread = self._loop = self._task = None
        if thread is None:
            return
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(task.cancel)
        thread.join(self._device.timeout_s + 1.0)

    def _start(self) -> None:
        """Subscribe, and wait within the timeout until every topic has sent something."""
        self._shared = shared = _Subscription()
        self._thread = threading.Thread(target=self._run, args=(shared,), name="facility-mqtt", daemon=True)
        self._thread.start()
        end_s = time.monotonic() + self._device.timeout_s
        topics = {topic for topic, _ in self._points}
        with shared.changed:
            while shared.problem or any(t not in shared.newest or shared.newest[t].retained for t in topics):
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return
                shared.changed.wait(left_s)

    def _run(self, shared: _Subscription) -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._keep(shared))
        self._loop, self._task = loop, task
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    async def _keep(self, shared: _Subscription) -> None:
        """Keep the subscription, over every failure, until it is cancelled."""
        pause_s = _AGAIN_S[0]
        while not shared.ended:
            try:
                await self._subscribe(shared)
            except Exception as error:  # noqa: BLE001 - whatever the library raises, the next attempt may succeed
                was_well = not shared.problem
                shared.note(str(error).partition("\n")[0][:200] or type(error).__name__)
                pause_s = _AGAIN_S[0] if was_well else min(2 * pause_s, _AGAIN_S[1])
                await asyncio.sleep(pause_s)

    async def _subscribe(self, shared: _Subscription) -> None:
        device = self._device
        login = {"username": device.user, "password": Secret(device.password_file).read()} if device.user else {}
        client = self._client(
            device.host,
            device.port(8883 if device.tls else 1883),
            timeout=device.timeout_s,
            tls_context=self._tls(),
            **login,
        )
        async with client:
            await client.subscribe([(topic, 0) for topic in dict.fromkeys(topic for topic, _ in self._points)])
            shared.note("")
            async for message in client.messages:
                if isinstance(message.payload, bytes) and len(message.payload) <= _MOST_BYTES:
                    shared.take(str(message.topic), message.payload, retained=bool(message.retain))

    def _tls(self) -> ssl.SSLContext | None:
        if not self._device.tls:
            return None
        check_regular(self._device.ca_file)  # it would be waited for if it were a pipe
        return ssl.create_default_context(cafile=self._device.ca_file or None)

    def _number(self, newest: _Newest | None, point: MqttPoint) -> float | str:
        """Return the number in a message; otherwise why there is none."""
        if newest is None:
            return "no message yet"
        if newest.retained:
            return "only a retained message, whose age is not known"
        age_s = time.monotonic() - newest.at_s
        if age_s > self._device.silent_after_s:
            return f"no message for {age_s:.0f} s"
        if not point.pointer:
            found = number(newest.body.decode("ascii", "replace"))
            return f"{newest.body[:40]!r} is not a number" if found is None else found
        try:
            return pointed(decode_plain_json(newest.body, point.topic, _MOST_BYTES), point.pointer)
        except (LookupError, Rejected) as error:
            return str(error.args[0])[:200]


MQTT = DeviceProtocol("mqtt", MqttDevice, MapFile[MqttPoint], MqttReader)
