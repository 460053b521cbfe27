"""SNMP v2c and v3 by pysnmp: numbers at fixed OIDs, a few per request."""

import asyncio
import importlib.util
from typing import Any, TypeAlias

from pysnmp.hlapi.v3arch import asyncio as api
from pysnmp.proto.rfc1905 import EndOfMibView, NoSuchInstance, NoSuchObject

from powerhall.runtime.errors import Retryable
from powerhall.runtime.settings import Secret
from powerhall_agent.facility.gateway_settings import SnmpDevice
from powerhall_agent.facility.points import DeviceMap, SnmpPoint
from powerhall_agent.facility.reader import Pacer, ReadResult

__all__ = ["SnmpReader"]

_Untyped: TypeAlias = Any
"""Objects of pysnmp, which has no type information."""
_PER_REQUEST = 10
_AUTH = {
    "sha1": api.USM_AUTH_HMAC96_SHA,
    "sha256": api.USM_AUTH_HMAC192_SHA256,
    "sha384": api.USM_AUTH_HMAC256_SHA384,
    "sha512": api.USM_AUTH_HMAC384_SHA512,
}
_PRIVACY = {"aes128": api.USM_PRIV_CFB128_AES, "aes256": api.USM_PRIV_CFB256_AES}
_BUSY = (0, 2)
"""Error status 0 is none, 2 is noSuchName: a point that is not there; any other is the agent's own trouble."""


class SnmpReader:
    """Reads one SNMP agent; the event loop belongs to the reader and runs only while it reads."""

    def __init__(self, device: SnmpDevice, points: DeviceMap) -> None:
        if device.privacy_file and importlib.util.find_spec("cryptography") is None:
            raise ImportError("needed for privacy", name="cryptography")
        self._device = device
        self._pacer = Pacer(device.pause_s)
        found = [point for point in points.points if isinstance(point, SnmpPoint)]
        self._oids = {point.oid.replace("{member}", device.member): point.name for point in found}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: _Untyped = None

    def read(self) -> ReadResult:
        """Read all points; raises Retryable when the agent does not answer as it should."""
        if self._loop is None:
            self._loop, self._engine = asyncio.new_event_loop(), api.SnmpEngine()
        answer = ReadResult()
        try:
            self._loop.run_until_complete(self._read(answer))
        except Retryable:
            self.close()  # keys and engine id are learnt afresh: the agent may have been replaced
            raise
        except Exception as error:  # noqa: BLE001 - pysnmp raises its own and pyasn1's errors for malformed answers
            self.close()
            raise Retryable(f"{self._device.address}: {type(error).__name__}: {error}") from None
        return answer

    def close(self) -> None:
        """End the engine and its loop."""
        loop, engine = self._loop, self._engine
        self._loop = self._engine = None
        if loop is None:
            return
        engine.close_dispatcher()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    async def _read(self, answer: ReadResult) -> None:
        device, oids = self._device, list(self._oids)
        target = await api.UdpTransportTarget.create(
            (device.host, device.port(161)), timeout=device.timeout_s / 2, retries=1
        )
        login = self._login()
        for start in range(0, len(oids), _PER_REQUEST):
            await self._get(login, target, oids[start : start + _PER_REQUEST], answer)

    async def _get(self, login: _Untyped, target: _Untyped, oids: list[str], answer: ReadResult) -> None:
        self._pacer.wait()
        wanted = [api.ObjectType(api.ObjectIdentity(oid)) for oid in oids]
        indication, status, index, found = await api.get_cmd(
            self._engine, login, target, api.ContextData(), *wanted, lookupMib=False
        )
        if indication is not None:
            raise Retryable(f"{self._device.address}: {_plain(indication)}")
        if int(status) not in _BUSY:
            raise Retryable(f"{self._device.address}: SNMP error status {int(status)} at {oids[int(index) - 1]}")
        for oid, (_, value) in zip(oids, found, strict=True):
            number = _number(value)
            if isinstance(number, float):
                answer.values[self._oids[oid]] = number
            else:
                answer.problems[self._oids[oid]] = f"{oid}: {number}"

    def _login(self) -> _Untyped:
        device = self._device
        if device.version == "2c":
            return api.CommunityData(Secret(device.community_file).read(), mpModel=1)  # noqa: S508 - for old PDUs, where settings say so
        auth = Secret(device.auth_file).read() if device.auth_file else None
        privacy = Secret(device.privacy_file).read() if device.privacy_file else None
        return api.UsmUserData(
            device.user,
            authKey=auth,
            privKey=privacy,
            authProtocol=_AUTH[device.auth] if auth else api.USM_AUTH_NONE,
            privProtocol=_PRIVACY[device.privacy] if privacy else api.USM_PRIV_NONE,
        )


def _plain(indication: object) -> str:
    text = str(indication)
    return "no answer within the timeout" if "before timeout" in text else text


def _number(value: _Untyped) -> float | str:
    """Return the number, also of a text that is one; otherwise why there is none."""
    if isinstance(value, NoSuchObject | NoSuchInstance | EndOfMibView):
        return "the agent has no such object"
    try:
        return float(value.prettyPrint())
    except ValueError:
        return f"{value.prettyPrint()[:40]!r} is not a number"
