"""Carries leases from the store to the capper, and the capper's confirmations back.

The carrier is not trusted: leases and confirmations are signed, and a message that it loses, repeats or reorders may
slow jobs but never exceeds a budget. It reports to the capper twice a second that it is alive, whether the store
answers or not, and the capper's state and alarms to the store.
"""

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from powerhall.lease import RefusedForNow, SignedLease, read_unverified
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.store import Query, Select, Store
from powerhall.store.line_protocol import Point, encode
from powerhall_agent.capper.capper import CapReason, Status
from powerhall_agent.capper.capper_report import CapperReports
from powerhall_agent.capper.client import Reply

__all__ = ["Candidate", "CapperEnd", "Carrier", "lease_candidates", "newest_lease", "store_confirmation"]

_LEASE_AGE_S: Final = 3600.0
_AHEAD_S: Final = 86_400.0
"""A planner's clock may be ahead of this node's: points up to a day ahead are looked at too."""
_PAGES: Final = (2, 16, 128, 512)
"""Points per query: more only where those before are all bad or refused."""
_IN_PLACE_S: Final = 1.0
"""The planner writes a lease at the time of its issue; stores round times."""
_CONFIRM_AGAIN_S: Final = 60.0
_OFFERS_PER_TURN: Final = 8
_RETRY_S: Final = 60.0
_MAX_TEXT: Final = 96 * 1024
_MAX_TESTED: Final = 4096


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point that may be a lease for this node; only the capper can tell, since it alone has the key."""

    signed: SignedLease
    sequence: int
    issued_s: float

    @property
    def digest(self) -> bytes:
        """What tells one candidate from another: body and signature."""
        return hashlib.sha256(self.signed.body + b"\0" + self.signed.signature.encode()).digest()


def lease_candidates(
    store: Store, node: str, now_s: float, suffices: Callable[[list[Candidate]], bool]
) -> list[Candidate]:
    """Return what the store holds as leases for this node, newest number first; points that hold none are left out.

    More and older points are read, up to the last page, until `suffices` accepts those of one page that lie at the
    time at which their lease was issued: bad points, and copies under a later time, never hide a lease.
    """
    found: list[Candidate] = []
    end_s = now_s + _AHEAD_S
    for size in _PAGES:
        query = Query("lease", (Select("signed"),), where={"node": node}, order="desc", limit=size)
        rows = store.query(query, now_s - _LEASE_AGE_S, end_s)
        page = [(row.time_s, one) for row in rows if (one := _candidate(row.values.get("signed"), node)) is not None]
        found += [one for _, one in page]
        in_place = [one for time_s, one in page if abs(time_s - one.issued_s) <= _IN_PLACE_S]
        if len(rows) < size or suffices(in_place):
            break
        end_s = min(row.time_s for row in rows)
    return sorted(found, key=lambda candidate: -candidate.sequence)


def newest_lease(store: Store, node: str, now_s: float) -> SignedLease | None:
    """Return the lease with the highest number that the store holds for this node, of the last hour; unverified."""
    found = lease_candidates(store, node, now_s, bool)
    return found[0].signed if found else None


def _candidate(text: float | str | None, node: str) -> Candidate | None:
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        return None
    try:
        signed = decode_json(base64.b64decode(text, validate=True), SignedLease, "lease")
        signed.signature.encode()
        lease = read_unverified(signed)
    except (ValueError, Rejected):
        return None
    return Candidate(signed, lease.sequence, lease.issued_s) if lease.node == node else None


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
        """Hand a lease over; a refused one raises Rejected, RefusedForNow where it may be accepted later."""


class Carrier:
    """The carrier of one node: `turn` contacts the capper twice a second, `exchange` the stores in its own thread."""

    def __init__(self, leases: Store, confirmations: Store, client: CapperEnd, node: str, log: Log) -> None:
        """Leases are read from the first store, confirmations and the capper's state written to the second."""
        self._leases, self._confirmations, self._client = leases, confirmations, client
        self._node, self._log = node, log
        self._newest: list[Candidate] = []
        self._reply: Reply | None = None
        self._tested: dict[bytes, float] = {}
        self._accepted = b""
        self._stored_sequence, self._stored_s = 0, 0.0
        self._reports = CapperReports(node)
        self._silence, self._refusal, self._unread = "", "", ""

    @property
    def has_news(self) -> bool:
        """Return whether the capper has confirmed something that is not in the store yet."""
        reply = self._reply
        return reply is not None and reply.confirmation is not None and reply.status.sequence != self._stored_sequence

    def turn(self) -> None:
        """Report that the agent is alive, and offer leases that the capper has not seen.

        A lease that the capper gave up because the agent was silent or the capper restarted is offered again; one that
        it refused, after a minute, because a clock or a key may have been mended.
        """
        try:
            self._reply = self._offer(self._client.alive())
            self._silence = ""
        except (Retryable, Rejected) as error:
            self._silence = str(error)
            self._log.warning("lease", key=_log_key(error), detail=error)

    def _offer(self, reply: Reply) -> Reply:
        """Offer what may be newer than the lease that the capper knows; return its last answer."""
        now_s = time.monotonic()
        for alarm in reply.status.alarms:
            self._log.warning("capper", key=alarm, detail=alarm)
        new = [one for one in self._unknown(reply.status) if self._is_due(one, now_s)]
        new.sort(key=lambda one: (one.digest in self._tested, -one.sequence))
        for candidate in new[:_OFFERS_PER_TURN]:
            try:
                reply = self._client.offer(candidate.signed)
            except RefusedForNow as error:
                self._tested[candidate.digest] = now_s - _RETRY_S
                self._refusal = f"refused for now: {error}"
                self._log.warning("lease", key="later", detail=error)
            except Rejected as error:
                self._tested[candidate.digest] = now_s
                self._refusal = f"refused: {error}"
                self._log.warning("lease", key="refused", detail=error)
            else:
                self._accepted, self._refusal = candidate.digest, ""
                self._log.info("lease_applied", plan=reply.status.plan_id, sequence=reply.status.sequence)
                break
        while len(self._tested) > _MAX_TESTED:
            del self._tested[next(iter(self._tested))]
        return reply

    def _unknown(self, status: Status) -> list[Candidate]:
        """Return the candidates above the lease that the capper took last, and that one too where it gave it up."""
        gave_up = status.state == "safe" and status.reason in {CapReason.AGENT_SILENT, CapReason.START}
        if all(one.sequence != status.sequence for one in self._newest):
            return list(self._newest)
        return [one for one in self._newest if one.sequence >= status.sequence + (not gave_up)]

    def _is_due(self, candidate: Candidate, now_s: float) -> bool:
        tested_s = self._tested.get(candidate.digest)
        return tested_s is None or now_s - tested_s >= _RETRY_S

    def _suffices(self, page: list[Candidate]) -> bool:
        """Return whether a page holds the lease that the capper accepted last, or one that was never offered."""
        return any(one.digest == self._accepted or one.digest not in self._tested for one in page)

    def exchange(self, wall_s: float, mono_s: float) -> bool:
        """Read the newest lease; write a confirmation when it is new, and again every minute, in case a store loses it.

        The capper's state is written too, when it changed and every minute. Returns whether the stores answered.
        """
        self._unread = self._fails(lambda: self._read(wall_s))
        if self._unread and self._leases is self._confirmations:
            return False
        return not (self._unread + self._fails(lambda: self._write(wall_s, mono_s)))

    def _fails(self, act: Callable[[], None]) -> str:
        """Do something with a store; return why it failed, or ""."""
        try:
            act()
        except (Retryable, Rejected) as error:
            self._log.warning("store", key=_log_key(error), detail=error)
            return str(error)
        except Exception as error:  # noqa: BLE001 - an answer that nobody foresaw must not end the thread of leases
            problem = f"a defect, met in the store's answer: {error!r}"
            self._log.warning("store", key="defect", detail=problem)
            return problem
        return ""

    def _read(self, wall_s: float) -> None:
        self._newest = lease_candidates(self._leases, self._node, wall_s, self._suffices)

    def _write(self, wall_s: float, mono_s: float) -> None:
        reply, silence = self._reply, self._silence
        if reply is not None and reply.confirmation is not None:
            sequence = reply.status.sequence
            if self.has_news or mono_s - self._stored_s >= _CONFIRM_AGAIN_S:
                store_confirmation(self._confirmations, self._node, reply, wall_s)
                self._stored_sequence, self._stored_s = sequence, mono_s
        if reply is None and not silence:
            return  # nothing is known yet
        status = None if reply is None or silence else reply.status
        point = self._reports.due(status, (silence, self._refusal, self._unread), wall_s, mono_s)
        if point is not None:
            self._confirmations.write(encode(point))
            self._reports.told(point, mono_s)


def _log_key(error: Retryable | Rejected) -> str:
    """Return the kind of an error, so that one kind does not hide the other in the log."""
    return "refused" if isinstance(error, Rejected) else "unreachable"
