"""SNMP v2c and v3 by pysnmp: numbers at fixed OIDs, a few per request."""

import asyncio
import importlib
import importlib.util
import struct
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from powerhall.runtime.decode.numbers_in import finite
from powerhall.runtime.errors import Retryable
from powerhall.runtime.settings import Secret
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, MapFile, Point
from powerhall_agent.facility.reader import DeviceProtocol, Pacer, ReadResult, by_object

__all__ = ["SNMP", "SnmpDevice", "SnmpPoint", "SnmpReader"]

_Untyped: TypeAlias = Any
"""Objects of pysnmp, which has no type information."""
_PER_REQUEST = 10
_AUTH = {
    "sha1": "USM_AUTH_HMAC96_SHA",
    "sha256": "USM_AUTH_HMAC192_SHA256",
    "sha384": "USM_AUTH_HMAC256_SHA384",
    "sha512": "USM_AUTH_HMAC384_SHA512",
}
_PRIVACY = {"aes128": "USM_PRIV_CFB128_AES", "aes256": "USM_PRIV_CFB256_AES"}
"""Names of pysnmp's constants."""
_OPAQUE_FLOATS = {b"\x9f\x78\x04": struct.Struct(">f"), b"\x9f\x79\x08": struct.Struct(">d")}
"""SNMP has no floats: agents that show some wrap them so (draft-perkins-float, as net-snmp does)."""
_TOO_BIG = 1
_STATUSES = {1: "tooBig", 2: "noSuchName", 5: "genErr", 13: "resourceUnavailable", 16: "authorizationError"}
"""RFC 3416 section 3; in answers to a GET."""


class SnmpDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="snmp"):
    """An SNMP agent; `member` is the index of the unit in its tables."""

    version: Literal["1", "2c", "3"] = "3"
    """Version of SNMP."""
    community_file: str = ""
    """File with the community, for versions 1 and 2c alone."""
    user: str = ""
    """User of version 3."""
    auth: Literal["sha256", "sha384", "sha512", "sha1"] = "sha256"
    """Digest of version 3."""
    auth_file: str = ""
    """File with the authentication password."""
    privacy: Literal["aes128", "aes256"] = "aes128"
    """Cipher of version 3."""
    privacy_file: str = ""
    """File with the privacy password; needs `auth_file`."""

    def __post_init__(self) -> None:
        """Refuse a login that does not belong to the version."""
        self.check_host()
        if self.version != "3" and (not self.community_file or self.user or self.auth_file or self.privacy_file):
            raise ValueError(f"{self.name}: version {self.version}: needs community_file and nothing else")
        if self.version == "3" and (not self.user or self.community_file):
            raise ValueError(f"{self.name}: version 3: needs user, auth_file and privacy_file")
        if self.privacy_file and not self.auth_file:
            raise ValueError(f"{self.name}: privacy_file: needs auth_file, too")


class SnmpPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number at an OID, in which {member} stands for the device's `member`."""

    oid: Annotated[str, msgspec.Meta(pattern=r"^1(\.([0-9]+|\{member\}))+$")]


class SnmpReader:
    """Reads one SNMP agent; the event loop belongs to the reader and runs only while it reads."""

    def __init__(self, device: SnmpDevice, points: DeviceMap) -> None:
        """Prepare; nothing is sent yet."""
        self._api: _Untyped = importlib.import_module("pysnmp.hlapi.v3arch.asyncio")
        values = importlib.import_module("pysnmp.proto.rfc1905")
        self._timed_out = importlib.import_module("pysnmp.proto.errind").RequestTimedOut
        self._absent = (values.NoSuchObject, values.NoSuchInstance, values.EndOfMibView)
        if device.privacy_file and importlib.util.find_spec("cryptography") is None:
            raise ImportError("needed for privacy", name="cryptography")
        self._device = device
        self._pacer = Pacer(device.pause_s)
        found = [point for point in points.points if isinstance(point, SnmpPoint)]
        self._oids, self._twins = by_object(
            (point.oid.replace("{member}", device.member), point.name) for point in found
        )
        oids = list(self._oids)
        self._requests = [oids[at : at + _PER_REQUEST] for at in range(0, len(oids), _PER_REQUEST)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: _Untyped = None

    def read(self) -> ReadResult:
        """Read all points; raises Retryable when the agent does not answer as it should."""
        if self._loop is None:
            self._loop, self._engine = asyncio.new_event_loop(), self._api.SnmpEngine()
        answer = ReadResult()
        try:
            self._loop.run_until_complete(self._read(answer))
        except Retryable:
            self.close()  # keys and engine id are obtained again: the agent may have been replaced
            raise
        except Exception as error:  # noqa: BLE001 - pysnmp raises its own and pyasn1's errors for malformed answers
            self.close()
            raise Retryable(f"{self._device.address}: {type(error).__name__}: {error}") from None
        answer.repeat(self._twins)
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
        device = self._device
        target = await self._api.UdpTransportTarget.create(
            (device.host, device.port(161)), timeout=device.timeout_s / 2, retries=1
        )
        login = self._login()
        waiting, asked = [*self._requests], list[list[str]]()
        while waiting:
            oids = waiting.pop(0)
            parts = await self._get(login, target, oids, answer)
            waiting = parts + waiting
            if not parts:
                asked.append(oids)
        self._requests = asked  # those that the agent took: what it refused together is asked for apart from now on

    async def _get(self, login: _Untyped, target: _Untyped, oids: list[str], answer: ReadResult) -> list[list[str]]:
        """Read some objects into the answer; return them in parts where the agent refuses them together.

        An answer may be too big, and of version 1 a single absent object refuses all that are asked for with it.
        """
        self._pacer.wait()
        api = self._api
        wanted = [api.ObjectType(api.ObjectIdentity(oid)) for oid in oids]
        indication, status, index, found = await api.get_cmd(
            self._engine, login, target, api.ContextData(), *wanted, lookupMib=False
        )
        if indication is not None:
            raise Retryable(f"{self._device.address}: {self._reason(indication)}")
        if int(status):
            return self._refused(oids, int(status), int(index), answer)
        shown = {str(name).lstrip("."): value for name, value in found}
        for oid in oids:
            if oid not in shown:
                answer.problems[self._oids[oid]] = f"{oid}: the agent answered with other objects"
                continue
            value = shown[oid]
            number = "the agent has no such object" if isinstance(value, self._absent) else _number(value)
            if isinstance(number, float):
                answer.values[self._oids[oid]] = number
            else:
                answer.problems[self._oids[oid]] = f"{oid}: {number}"
        return []

    def _refused(self, oids: list[str], status: int, index: int, answer: ReadResult) -> list[list[str]]:
        """Return the parts of a refused request: the object that the agent names apart, otherwise two halves."""
        if len(oids) == 1:
            answer.problems[self._oids[oids[0]]] = f"{oids[0]}: the agent refuses it: {_STATUSES.get(status, status)}"
            return []
        if status != _TOO_BIG and 0 < index <= len(oids):
            return [oids[: index - 1] + oids[index:], [oids[index - 1]]]
        return [oids[: len(oids) // 2], oids[len(oids) // 2 :]]

    def _reason(self, indication: object) -> str:
        return "no answer within the timeout" if isinstance(indication, self._timed_out) else str(indication)

    def _login(self) -> _Untyped:
        device, api = self._device, self._api
        if device.version != "3":
            return api.CommunityData(Secret(device.community_file).read(), mpModel=int(device.version != "1"))
        auth = Secret(device.auth_file).read() if device.auth_file else None
        privacy = Secret(device.privacy_file).read() if device.privacy_file else None
        return api.UsmUserData(
            device.user,
            authKey=auth,
            privKey=privacy,
            authProtocol=getattr(api, _AUTH[device.auth]) if auth else api.USM_AUTH_NONE,
            privProtocol=getattr(api, _PRIVACY[device.privacy]) if privacy else api.USM_PRIV_NONE,
        )


def _number(value: _Untyped) -> float | str:
    """Return the number, also of a text that is one, or of a float in an Opaque; otherwise why there is none."""
    wrapped = _OPAQUE_FLOATS.get(bytes(value)[:3]) if type(value).__name__ == "Opaque" else None
    try:
        return finite(str(wrapped.unpack(bytes(value)[3:])[0]) if wrapped is not None else value.prettyPrint())
    except struct.error:
        return f"{value.prettyPrint()[:40]!r} is cut off"
    except ValueError:
        return f"{value.prettyPrint()[:40]!r} is not a number"


SNMP = DeviceProtocol("snmp", SnmpDevice, MapFile[SnmpPoint], SnmpReader)
