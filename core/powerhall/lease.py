"""Power-cap leases: caps on the GPUs of one node until an expiry time, signed for that node alone.

A lease sets caps on a node until `expires_s`. After that the node falls back to its safe cap by itself, without the
network. Signatures are HMAC-SHA256 with a key per node, derived from the site key, so that a stolen node key forges
leases for that node only; the capper holds no other.

A confirmation goes from the capper to the ledger, signed with the same key. It states that no lease older than
`sequence` can come into force on the node any more, and that the GPUs read back the caps as set. The first statement
stays true once it is true, so a confirmation that is late, repeated, overtaken or replayed frees no budget that is
still in use.
"""

import hashlib
import hmac
import math
from typing import Final

import msgspec

from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected

__all__ = [
    "CLOCK_SKEW_S",
    "Confirmation",
    "GpuCap",
    "Lease",
    "RefusedForNow",
    "SignedConfirmation",
    "SignedLease",
    "node_key",
    "open_confirmation",
    "open_lease",
    "read_unverified",
    "sign_confirmation",
    "sign_lease",
]

CLOCK_SKEW_S: Final = 1.0
"""Difference between the clocks of planner and node that the ledger counts on every lease, in seconds."""
_MAX_BODY_BYTES: Final = 48 * 1024
_MAX_GPU: Final = 1023
_MAX_SEQUENCE: Final = 1 << 53
"""Whole numbers up to here are exact in JSON and in a store's fields."""
_MAX_TEXT: Final = 256
_HEX: Final = frozenset("0123456789abcdef")
_CONFIRMATION: Final = b"powerhall confirmation\0"
"""Prefix of the signed bytes: a signed lease cannot be replayed as a confirmation, nor the reverse."""


class RefusedForNow(Rejected):
    """The same lease may be accepted later: one issued after this node's time, or a capper without a good key or disk.

    `sequence` and `issued_s` are those of a lease that was refused for its time alone.
    """

    sequence = 0
    issued_s = 0.0


class GpuCap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cap of one GPU: a power limit in W, or a lock of the SM clock in MHz, or both."""

    gpu: int
    power_limit_w: float | None = None
    sm_clock_mhz: float | None = None


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Caps of one node from one plan. `sequence` rises with every lease of a site; an older one is never applied.

    `node_cap_w` is the most the node draws under these caps: the figure that the ledger counts.
    """

    node: str
    plan_id: str
    sequence: int
    issued_s: float
    expires_s: float
    node_cap_w: float
    caps: tuple[GpuCap, ...]


class SignedLease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lease as it travels: its JSON bytes and their HMAC-SHA256 in hex."""

    body: bytes
    signature: str


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The node's caps are set, and no lease older than `sequence` will ever be applied; `time_s` is for people."""

    node: str
    sequence: int
    time_s: float


class SignedConfirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A confirmation as it travels: its JSON bytes and their HMAC-SHA256 in hex."""

    body: bytes
    signature: str


def node_key(site_key: bytes, node: str) -> bytes:
    """Derive the key of one node from the site key: HMAC-SHA256 of the node's name."""
    if len(site_key) < 32:
        raise Rejected("site key: too short: must have at least 32 bytes")
    return hmac.new(site_key, b"powerhall lease key\0" + node.encode(), hashlib.sha256).digest()


def _signature(body: bytes, key: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def _is_signed(body: bytes, key: bytes, signature: str) -> bool:
    """Compare signatures; one that is not 64 hex digits (it may hold lone surrogates) belongs to nobody."""
    if len(signature) != 64 or not _HEX.issuperset(signature):
        return False
    return hmac.compare_digest(_signature(body, key), signature)


def sign_lease(lease: Lease, key: bytes) -> SignedLease:
    """Sign a lease with its node's key."""
    body = msgspec.json.encode(lease)
    return SignedLease(body, _signature(body, key))


def open_lease(
    signed: SignedLease, key: bytes, node: str, newest_sequence: int, now_s: float, *, skew_s: float = CLOCK_SKEW_S
) -> Lease:
    """Check signature, contents, node, age and order of a lease and return it.

    A failed check raises Rejected with the reason. A lease that is sound but was issued more than `skew_s` after
    `now_s` raises RefusedForNow: one of the two clocks is wrong.
    """
    if not _is_signed(signed.body, key, signed.signature):
        raise Rejected(f"lease: signature: does not belong to node {node!r}: must be signed with the node's key")
    lease = read_unverified(signed)
    if lease.node != node:
        raise Rejected.field("lease", "node", lease.node, f"must be {node!r}")
    if lease.sequence <= newest_sequence:
        raise Rejected.field(
            "lease", "sequence", lease.sequence, f"must be above {newest_sequence}: a newer lease holds"
        )
    if lease.expires_s <= now_s:
        raise Rejected.field("lease", "expires_s", lease.expires_s, "must lie in the future: the lease has run out")
    if lease.issued_s > now_s + skew_s:
        ahead_s = lease.issued_s - now_s
        allowed = f"is {ahead_s:.1f} s ahead of this node's clock; must be at most {skew_s:g} s ahead"
        error = RefusedForNow(f"lease: issued_s: {lease.issued_s!r}: {allowed}")
        error.sequence, error.issued_s = lease.sequence, lease.issued_s
        raise error
    return lease


def read_unverified(signed: SignedLease) -> Lease:
    """Return what a lease says, whoever signed it; what no ledger writes raises Rejected."""
    body = signed.body
    if len(body) > _MAX_BODY_BYTES:
        raise Rejected.field("lease", "body", f"{len(body)} bytes", f"must be at most {_MAX_BODY_BYTES} bytes")
    lease = decode_json(body, Lease, "lease: body")
    _check_numbers(lease)
    if len(lease.plan_id) > _MAX_TEXT:
        raise Rejected.field("lease", "plan_id", lease.plan_id[:40], f"must have at most {_MAX_TEXT} characters")
    gpus = [cap.gpu for cap in lease.caps]
    if len(gpus) != len(set(gpus)) or not all(0 <= gpu <= _MAX_GPU for gpu in gpus):
        raise Rejected.field("lease", "caps.gpu", gpus[:20], f"must be different numbers from 0 to {_MAX_GPU}")
    return lease


def _check_numbers(lease: Lease) -> None:
    watts = [cap.power_limit_w for cap in lease.caps] + [cap.sm_clock_mhz for cap in lease.caps] + [lease.node_cap_w]
    numbers = [lease.issued_s, lease.expires_s, *(value for value in watts if value is not None)]
    if not all(map(math.isfinite, numbers)) or any(value is not None and value < 0 for value in watts):
        raise Rejected("lease: numbers: must be finite, and caps not negative")
    if not 0 <= lease.sequence <= _MAX_SEQUENCE:
        raise Rejected.field("lease", "sequence", lease.sequence, f"must be from 0 to {_MAX_SEQUENCE}")
    if lease.expires_s <= lease.issued_s:
        raise Rejected.field("lease", "expires_s", lease.expires_s, f"must be after issued_s {lease.issued_s!r}")


def sign_confirmation(confirmation: Confirmation, key: bytes) -> SignedConfirmation:
    """Sign a confirmation with its node's key."""
    body = msgspec.json.encode(confirmation)
    return SignedConfirmation(body, _signature(_CONFIRMATION + body, key))


def open_confirmation(signed: SignedConfirmation, key: bytes, node: str) -> Confirmation:
    """Check signature and node of a confirmation and return it; a failed check raises Rejected with the reason."""
    if not _is_signed(_CONFIRMATION + signed.body, key, signed.signature):
        raise Rejected(f"confirmation: signature: does not belong to node {node!r}: must be signed with the node's key")
    confirmation = decode_json(signed.body, Confirmation, "confirmation: body")
    if confirmation.node != node:
        raise Rejected.field("confirmation", "node", confirmation.node, f"must be {node!r}")
    return confirmation
