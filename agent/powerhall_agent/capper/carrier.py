"""Carries leases from the store to the capper, and the capper's confirmations back.

The carrier is not trusted: leases and confirmations are signed, and a message that it loses, repeats or reorders may
slow jobs but never exceeds a budget. It reports to the capper twice a second that it is alive, whether the store
answers or not.
"""

import base64
from typing import Protocol

import msgspec

from powerhall.lease import SignedLease
from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.store import Query, Select, Store
from powerhall.store.line_protocol import Point, encode
from powerhall_agent.capper.capper import CapReason
from powerhall_agent.capper.client import Reply

__all__ = ["CapperEnd", "Carrier", "newest_lease", "store_confirmation"]

_LEASE_AGE_S = 3600.0
_CONFIRM_AGAIN_S = 60.0


def newest_lease(store: Store, node: str, now_s: float) -> SignedLease | None:
    """Return the newest lease that the store holds for this node, of the last hour; a damaged one raises Rejected."""
    query = Query("lease", (Select("signed", "last"),), where={"node": node})
    texts = [row.values.get("signed") for row in store.query(query, now_s - _LEASE_AGE_S, now_s + 60.0)]
    if not texts or not isinstance(texts[0], str):
        return None
    try:
        return msgspec.json.decode(base64.b64decode(texts[0], validate=True), type=SignedLease)
    except (ValueError, msgspec.DecodeError) as error:
        raise Rejected(f"lease: {node}: not readable: {error}") from None


def store_confirmation(store: Store, node: str, reply: Reply, now_s: float) -> None:
    """Write the capper's confirmation into the store."""
    signed = base64.b64encode(msgspec.json.encode(reply.confirmation)).decode()
    fields: dict[str, float | str] = {"sequence": float(reply.status.sequence), "signed": signed}
    store.write(encode(Point("lease_confirmation", {"node": node}, fields, round(now_s * 1000))))


class CapperEnd(Protocol):
    """The interface of the capper: `CapperClient`, or a capper in the same process."""

    def alive(self) -> Reply:
        """Send a heartbeat of the agent."""

    def offer(self, lease: SignedLease) -> Reply:
        """Hand a lease over; a refused one raises Rejected."""


class Carrier:
    """The carrier of one node: `turn` contacts the capper twice a second, `exchange` the stores in its own thread."""

    def __init__(self, leases: Store, confirmations: Store, client: CapperEnd, node: str, log: Log) -> None:
        """Leases are read from the first store, confirmations written to the second."""
        self._leases, self._confirmations, self._client = leases, confirmations, client
        self._node, self._log = node, log
        self._newest: SignedLease | None = None
        self._reply: Reply | None = None
        self._offered = self._refused = b""
        self._stored_sequence, self._stored_s = 0, 0.0

    @property
    def has_news(self) -> bool:
        """Return whether the capper has confirmed something that is not in the store yet."""
        reply = self._reply
        return reply is not None and reply.confirmation is not None and reply.status.sequence != self._stored_sequence

    def turn(self) -> None:
        """Report that the agent is alive, and offer a lease that the capper has not seen.

        A lease that the capper gave up because the agent was silent or the capper restarted is offered again.
        """
        try:
            reply = self._client.alive()
            gave_up = reply.status.state == "safe" and reply.status.reason in {CapReason.AGENT_SILENT, CapReason.START}
            signed = self._newest
            if signed is not None and signed.body != self._refused and (signed.body != self._offered or gave_up):
                self._offered = self._refused = signed.body
                reply = self._client.offer(signed)
                self._refused = b""
                self._log.info("lease_applied", plan=reply.status.plan_id, sequence=reply.status.sequence)
            self._reply = reply
        except (Retryable, Rejected) as error:
            self._log.warning("lease", key=_log_key(error), detail=error)

    def exchange(self, wall_s: float, mono_s: float) -> bool:
        """Read the newest lease; write a confirmation when it is new, and again every minute, in case a store loses it.

        Returns whether the stores answered.
        """
        try:
            self._newest = newest_lease(self._leases, self._node, wall_s)
            reply = self._reply
            if reply is None or reply.confirmation is None:
                return True
            sequence = reply.status.sequence
            if self.has_news or mono_s - self._stored_s >= _CONFIRM_AGAIN_S:
                store_confirmation(self._confirmations, self._node, reply, wall_s)
                self._stored_sequence, self._stored_s = sequence, mono_s
        except (Retryable, Rejected) as error:
            self._log.warning("store", key=_log_key(error), detail=error)
            return False
        return True


def _log_key(error: Retryable | Rejected) -> str:
    """Return the kind of an error, so that one kind does not hide the other in the log."""
    return "refused" if isinstance(error, Rejected) else "unreachable"
