"""The ledger's file: leases that may be in force, the newest plan, and what is not known after a loss.

It is one JSON object whose last member, `seal`, is the HMAC-SHA256 of the bytes before it under the site key. A file
with another seal, or without one as older versions wrote it, is refused: a cap or a node too low in it would be
believed. It does not tell an old copy from the newest file.
"""

import hashlib
import hmac
import math
from pathlib import Path

import msgspec

from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.decode.limits import MOST_JSON_BYTES, enlarged, size_text
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.files import replace_file

__all__ = [
    "MOST_AHEAD_S",
    "ClockMark",
    "LedgerEntry",
    "LedgerFile",
    "PlanMark",
    "State",
    "clock_mark",
    "newest_number",
    "unknown_state",
    "with_seal",
]

MOST_AHEAD_S = 86_400.0
"""Numbers and ends are not believed further ahead of the clock: no clock that is merely wrong explains them."""
_MOST_SEQUENCE = 1 << 52
"""Cappers take numbers up to twice that."""
_MOST_CAP_W = 10**9
_SEAL = b',"seal":"'
_SEAL_LENGTH = len(_SEAL) + 64 + len(b'"}')
_SIGNED = b"powerhall ledger\0"
"""Prefix of the bytes under the seal: no key or signature of a lease is ever one."""


class LedgerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lease that may still be in force on a node."""

    sequence: int
    cap_w: int
    expires_s: float


class PlanMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest plan that leases were granted for; `replaced` are the plans of the same second before it."""

    plan_id: str
    created_s: int
    start_s: int
    replaced: tuple[str, ...] = ()


class ClockMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This host's wall clock beside its time since boot, when both were last believed."""

    boot: str
    wall_s: float
    uptime_s: float


class State(msgspec.Struct, forbid_unknown_fields=True):
    """All that the ledger knows.

    `time_s` is the last change, `longest_s` the longest lease so far. Until `unknown_until_s` every node may hold a
    lease that is not in here, but for the `known` ones: they confirmed a lease with a number above `unknown_since`.
    `confirmed` are the nodes whose capper has ever confirmed a lease: it holds their GPUs.
    """

    sequence: int = 0
    entries: dict[str, list[LedgerEntry]] = {}
    site: str = ""
    time_s: float = 0.0
    longest_s: float = 0.0
    plan: PlanMark | None = None
    clock: ClockMark | None = None
    unknown_until_s: float = 0.0
    unknown_since: int = 0
    known: list[str] = []
    confirmed: set[str] = set()


def unknown_state(state: State, now_s: float, until_s: float, sequence: int = 0) -> State:
    """Return the state from which leases may be missing that are in force until `until_s`, up to number `sequence`.

    A number that is too far ahead does not count: the numbers after it would be used up.
    """
    newest = max(state.sequence, min(sequence, newest_number(now_s)), int(now_s * 1000))
    until_s = max(state.unknown_until_s, until_s)
    return msgspec.structs.replace(
        state, sequence=newest, unknown_since=newest, known=[], unknown_until_s=until_s, time_s=now_s
    )


def newest_number(now_s: float) -> int:
    """Return the highest number that a lease can have by now; numbers rise with the time in ms."""
    return int((now_s + MOST_AHEAD_S) * 1000)


def with_seal(body: bytes, key: bytes) -> bytes:
    """Return the JSON object of a ledger with its seal; with an empty key that is a checksum alone."""
    seal = hmac.new(key, _SIGNED + body, hashlib.sha256).hexdigest()
    return body[:-1] + _SEAL + seal.encode() + b'"}'


class LedgerFile:
    """Reads and replaces the file; `key` is the site key, empty for a model that has none."""

    def __init__(self, path: Path, key: bytes = b"") -> None:
        self.path, self._key = path, key

    def read(self) -> State:
        """Return the state; one that is damaged or no ledger raises Rejected, one that cannot be read ConfigError."""
        if self.path.exists() and not self.path.is_file():
            raise Rejected(f"{self.path}: must be a regular file")
        if self.path.exists() and self.path.stat().st_size > enlarged(MOST_JSON_BYTES):
            raise Rejected(f"{self.path}: larger than {size_text(enlarged(MOST_JSON_BYTES))}, the most that is read")
        text = read_file(self.path, MOST_JSON_BYTES)
        body = text[:-_SEAL_LENGTH] + b"}"
        if not hmac.compare_digest(with_seal(body, self._key), text):
            found = "does not fit: the file was changed, or sealed with another site key"
            none = "is missing: an older version wrote the file, or another hand"
            raise Rejected(f"{self.path}: seal: {found if _SEAL in text else none}")
        state = decode_json(body, State, str(self.path))
        self._check(state)
        return state

    def _check(self, state: State) -> None:
        times = [state.time_s, state.longest_s, state.unknown_until_s]
        for node, held in state.entries.items():
            times += [entry.expires_s for entry in held]
            if not all(0 <= entry.cap_w <= _MOST_CAP_W and 0 <= entry.sequence <= state.sequence for entry in held):
                raise Rejected(f"{self.path}: entries.{node}: a cap or a number is out of range")
        if not all(map(math.isfinite, times)) or not 0 <= state.sequence <= _MOST_SEQUENCE:
            raise Rejected(f"{self.path}: a time or a number is out of range")

    def write(self, state: State) -> None:
        """Replace the file, on disk when this returns; ConfigError where that fails.

        A state that `read` would refuse raises Rejected, and the file stays as it is.
        """
        self._check(state)
        try:
            replace_file(self.path, with_seal(msgspec.json.encode(state), self._key), durable=True)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot write: {error.strerror}") from None

    def set_aside(self, now_s: float) -> Path:
        """Keep a damaged file under another name and return that name."""
        kept = self.path.with_name(f"{self.path.name}.damaged-{int(now_s)}")
        number = 1
        while kept.exists():
            number += 1
            kept = self.path.with_name(f"{self.path.name}.damaged-{int(now_s)}-{number}")
        try:
            self.path.rename(kept)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot set aside: {error.strerror}") from None
        return kept


def clock_mark(path: Path, key: bytes) -> ClockMark | None:
    """Return the clock of the last grant; None where no ledger tells."""
    try:
        return LedgerFile(path, key).read().clock
    except Rejected:
        return None
