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

import msgspec

from powerhall.runtime.errors import Rejected

__all__ = [
    "Confirmation",
    "GpuCap",
    "Lease",
    "SignedConfirmation",
    "SignedLease",
    "node_key",
    "open_confirmation",
    "open_lease",
    "sign_confirmation",
    "sign_lease",
]

_CONFIRMATION = b"powerhall confirmation\0"
"""Prefix of the signed bytes: a signed lease cannot be replayed as a confirmation, nor the reverse."""


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
    return hmac.compare_digest(_signature(body, key).encode(), signature.encode())


def sign_lease(lease: Lease, key: bytes) -> SignedLease:
    """Sign a lease with its node's key."""
    body = msgspec.json.encode(lease)
    return SignedLease(body, _signature(body, key))


def open_lease(signed: SignedLease, key: bytes, node: str, newest_sequence: int, now_s: float) -> Lease:
    """Check signature, node, age and order of a lease and return it; a failed check raises Rejected with the reason."""
    if not _is_signed(signed.body, key, signed.signature):
        raise Rejected(f"lease: signature: does not belong to node {node!r}: must be signed with the node's key")
    try:
        lease = msgspec.json.decode(signed.body, type=Lease)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Rejected(f"lease: body: {error}") from None
    if lease.node != node:
        raise Rejected.field("lease", "node", lease.node, f"must be {node!r}")
    if lease.sequence <= newest_sequence:
        raise Rejected.field(
            "lease", "sequence", lease.sequence, f"must be above {newest_sequence}: a newer lease holds"
        )
    if lease.expires_s <= now_s:
        raise Rejected.field("lease", "expires_s", lease.expires_s, "must lie in the future: the lease has run out")
    return lease


def sign_confirmation(confirmation: Confirmation, key: bytes) -> SignedConfirmation:
    """Sign a confirmation with its node's key."""
    body = msgspec.json.encode(confirmation)
    return SignedConfirmation(body, _signature(_CONFIRMATION + body, key))


def open_confirmation(signed: SignedConfirmation, key: bytes, node: str) -> Confirmation:
    """Check signature and node of a confirmation and return it; a failed check raises Rejected with the reason."""
    if not _is_signed(_CONFIRMATION + signed.body, key, signed.signature):
        raise Rejected(f"confirmation: signature: does not belong to node {node!r}: must be signed with the node's key")
    try:
        confirmation = msgspec.json.decode(signed.body, type=Confirmation)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Rejected(f"confirmation: body: {error}") from None
    if confirmation.node != node:
        raise Rejected.field("confirmation", "node", confirmation.node, f"must be {node!r}")
    return confirmation
