"""Entries of an archive of rounds: what a round read and decided, chained by hashes and signed with the site key.

An entry names its objects by the SHA-256 of their files, and the entry before it by the SHA-256 of its file, so that a
change of any byte of any file shows. Without a key the chain shows accidents; who can write all files can make it new.
"""

import hashlib
import hmac
import zlib
from collections.abc import Mapping

import msgspec

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.decode.bytes_in import inflate
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.decode.limits import MOST_JSON_BYTES
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.inputs.round_settings import RoundSettings

__all__ = [
    "HEAD",
    "START",
    "Entry",
    "Head",
    "RoundInputs",
    "digest",
    "entry_name",
    "object_name",
    "open_signed",
    "other_versions",
    "pack",
    "read_plan_object",
    "seal",
    "unpack",
]

HEAD = "head.json"
START = "0" * 64
"""What the first entry of an archive names before it."""


class RoundInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a plan follows from, but the last plan: snapshots of the sites, settings, seconds of the round."""

    snapshots: tuple[Snapshot, ...]
    settings: RoundSettings
    seconds: float
    created_s: int


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A round. `inputs`, `plan` and `last_plan` ("" for none) are the digests of objects."""

    sequence: int
    before: str
    time_s: int
    sites: tuple[str, ...]
    plan_id: str
    inputs: str
    plan: str
    last_plan: str
    versions: dict[str, str]

    def objects(self) -> dict[str, str]:
        """Return the digests of its objects by what they are."""
        named = {"inputs": self.inputs, "plan": self.plan, "last plan": self.last_plan}
        return {what: name for what, name in named.items() if name}


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First and last entry kept: `before` is the digest of the entry before the first one, `newest` of the last."""

    first: int
    before: str
    last: int
    newest: str


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: bytes
    check: str
    """SHA-256 of the body: shows damage to those who have no key."""
    signature: str
    """HMAC-SHA256 in hex with a key derived from the site key; empty where the round had none."""


def digest(raw: bytes) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(raw).hexdigest()


def entry_name(sequence: int) -> str:
    """Return the name of an entry's file."""
    return f"entries/{sequence:012d}.json"


def object_name(name: str) -> str:
    """Return the name of an object's file."""
    return f"objects/{name}"


def pack(value: object) -> bytes:
    """Return an object as it is stored: compressed JSON, the same for the same value."""
    return zlib.compress(msgspec.json.encode(value), 6)


def unpack(raw: bytes, source: str) -> bytes:
    """Return the JSON of an object; what is none raises Rejected."""
    return inflate(raw, source, MOST_JSON_BYTES)


def read_plan_object(raw: bytes, source: str) -> Plan | MultiSitePlan:
    """Return the plan of one site or of several in an object; anything else raises Rejected."""
    body = unpack(raw, source)
    fields = decode_json(body, dict[str, msgspec.Raw], source)
    return decode_json(body, MultiSitePlan, source) if "plans" in fields else decode_json(body, Plan, source)


def seal(value: Entry | Head, key: bytes | None) -> bytes:
    """Return an entry or the head as a file, signed where there is a key."""
    body = msgspec.json.encode(value)
    signature = "" if key is None else _signature(body, type(value), key)
    return msgspec.json.encode(_Signed(body, digest(body), signature))


def open_signed(raw: bytes, kind: type[Entry] | type[Head], key: bytes | None, source: str) -> Entry | Head:
    """Return an entry or the head; Rejected where the file is not as it was written, or not signed with the key."""
    signed = decode_json(raw, _Signed, source)
    if msgspec.json.encode(signed) != raw or signed.check != digest(signed.body):
        raise Rejected(f"{source}: tampered: it is not as a round writes it")
    if key is not None and not hmac.compare_digest(
        _signature(signed.body, kind, key).encode(), signed.signature.encode("utf-8", "replace")
    ):
        what = "is not signed" if not signed.signature else "the signature is not the site key's"
        raise Rejected(f"{source}: tampered: {what}")
    return decode_json(signed.body, kind, source)


def _signature(body: bytes, kind: type[Entry] | type[Head], key: bytes) -> str:
    own = hmac.new(key, b"powerhall archive key\0", hashlib.sha256).digest()
    return hmac.new(own, kind.__name__.encode() + b"\0" + body, hashlib.sha256).hexdigest()


def other_versions(made: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return what differs between two sets of versions, as text; empty where nothing does."""
    names = sorted(made.keys() | here.keys())
    return ", ".join(
        f"{name} {made.get(name, 'none')} there, {here.get(name, 'none')} here"
        for name in names
        if made.get(name) != here.get(name)
    )
