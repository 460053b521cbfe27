"""OPC UA (IEC 62541) by asyncua: all nodes in one request over a kept session, each with its status code.

A server that reads fewer at once (`MaxNodesPerRead`) is asked for as many as it takes.
"""

import asyncio
import contextlib
import logging
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from powerhall.runtime.errors import Retryable
from powerhall.runtime.settings import Secret
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, MapFile, Point
from powerhall_agent.facility.reader import DeviceProtocol, Pacer, ReadResult, by_object

__all__ = ["OPCUA", "OpcuaDevice", "OpcuaPoint", "OpcuaReader"]

_Untyped: TypeAlias = Any
"""Objects of asyncua, whose types are made from the standard's schema at run time."""
_TOO_MANY = ("BadTooManyOperations", "BadResponseTooLarge", "BadRequestTooLarge", "BadEncodingLimitsExceeded")
"""Status codes of a request for more nodes than a server reads at once."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class OpcuaDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="opcua"):
    """An OPC UA server, by its endpoint `opc.tcp://HOST:PORT[/PATH]`."""

    user: str = ""
    """User; together with `password_file`."""
    password_file: str = ""
    """File with the password."""
    security: Literal["none", "sign", "sign_and_encrypt"] = "none"
    """Security of the messages, by the policy Basic256Sha256; needs the certificates and the key."""
    certificate_file: str = ""
    """Own certificate, which the server trusts."""
    key_file: str = ""
    """Key of the own certificate."""
    server_certificate_file: str = ""
    """Certificate of the server, and no other is accepted."""

    def __post_init__(self) -> None:
        """Refuse another address, half of a login or of the certificates, and a password over a plain connection."""
        scheme, _, rest = self.address.partition("://")
        if scheme != "opc.tcp" or not rest or "@" in rest:
            raise ValueError(f"{self.name}: address: {self.address!r}: must be opc.tcp://HOST:PORT")
        if bool(self.user) != bool(self.password_file):
            raise ValueError(f"{self.name}: user and password_file go together")
        files = (self.certificate_file, self.key_file, self.server_certificate_file)
        if all(files) != (self.security != "none") or any(files) != all(files):
            raise ValueError(f"{self.name}: security {self.security!r}: the three certificate and key files go with it")
        if self.user and self.security != "sign_and_encrypt" and not rest.startswith(_LOOPBACK):
            raise ValueError(f"{self.name}: security: must be sign_and_encrypt where there is a password")


class OpcuaPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The value of a node, by its id in the standard's text form; {member} stands for the device's `member`."""

    node: Annotated[str, msgspec.Meta(pattern=r"^(ns=[0-9]+;)?[isgb]=.+$")]


class OpcuaReader:
    """Reads one server over a session that is kept; the event loop runs only while the reader reads."""

    def __init__(self, device: OpcuaDevice, points: DeviceMap) -> None:
        """Prepare; nothing is sent yet."""
        import asyncua

        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self._asyncua: _Untyped = asyncua
        self._device, self._pacer = device, Pacer(device.pause_s)
        found = [point for point in points.points if isinstance(point, OpcuaPoint)]
        places = ((point.node.replace("{member}", device.member), point.name) for point in found)
        self._names, self._twins = by_object(places)
        self._together = max(1, len(self._names))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: _Untyped = None

    def read(self) -> ReadResult:
        """Read all nodes; raises Retryable when the server does not answer as one."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        answer = ReadResult()
        try:
            self._loop.run_until_complete(self._read(answer))
        except Exception as error:  # noqa: BLE001 - asyncua raises its own, the standard's and the socket's errors
            self.close()
            timed_out = isinstance(error, TimeoutError)
            why = "no answer within the timeout" if timed_out else f"{type(error).__name__}: {str(error)[:200]}"
            raise Retryable(f"{self._device.address}: {why}") from None
        answer.repeat(self._twins)
        return answer

    def close(self) -> None:
        """End the session and the loop."""
        loop, client = self._loop, self._client
        self._loop = self._client = None
        if loop is None:
            return
        if client is not None:
            loop.run_until_complete(self._leave(client))
        loop.close()

    async def _read(self, answer: ReadResult) -> None:
        if self._client is None:
            self._client = await self._made()
            await asyncio.wait_for(self._client.connect(), 2 * self._device.timeout_s)
        for node, value in zip(self._names, await self._values(), strict=True):
            number = None if value.Value is None else value.Value.Value
            if not value.StatusCode.is_good():
                answer.problems[self._names[node]] = f"{node}: {value.StatusCode.name}"
            elif isinstance(number, bool) or not isinstance(number, int | float):
                answer.problems[self._names[node]] = f"{node}: {str(number)[:40]!r} is not a number"
            else:
                answer.values[self._names[node]] = float(number)

    async def _values(self) -> list[_Untyped]:
        """Read all nodes, in as few requests as the server takes."""
        ua = self._asyncua.ua
        too_many = tuple(getattr(ua.uaerrors, name) for name in _TOO_MANY)
        nodes, found = [self._client.get_node(node) for node in self._names], list[_Untyped]()
        while len(found) < len(nodes):
            some = nodes[len(found) : len(found) + self._together]
            self._pacer.wait()
            try:
                read = self._client.read_attributes(some, ua.AttributeIds.Value)
                found += await asyncio.wait_for(read, self._device.timeout_s)
            except too_many:
                if len(some) == 1:
                    raise
                self._together = len(some) // 2
        return found

    async def _made(self) -> _Untyped:
        device = self._device
        client = self._asyncua.Client(device.address, timeout=device.timeout_s)
        if device.security != "none":
            from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

            modes = self._asyncua.ua.MessageSecurityMode
            mode = modes.Sign if device.security == "sign" else modes.SignAndEncrypt
            await client.set_security(
                SecurityPolicyBasic256Sha256,
                certificate=device.certificate_file,
                private_key=device.key_file,
                server_certificate=device.server_certificate_file,
                mode=mode,
            )
        if device.user:
            client.set_user(device.user)
            client.set_password(Secret(device.password_file).read())
        return client

    async def _leave(self, client: _Untyped) -> None:
        """End the session, and what the library keeps running beside it."""
        with contextlib.suppress(Exception):  # the session ends by itself
            await asyncio.wait_for(client.disconnect(), self._device.timeout_s)
        with contextlib.suppress(Exception):  # where there was none, the socket is still open
            client.disconnect_socket()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


OPCUA = DeviceProtocol("opcua", OpcuaDevice, MapFile[OpcuaPoint], OpcuaReader, "opcua")
