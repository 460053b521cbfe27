"""Exceptions that are no return code of the driver: each is an event and a traceback in the log, and costs one part."""

from collections.abc import Callable, Sequence
from typing import Final

from powerhall.runtime.log import Log
from powerhall_agent.base.clock import Clock
from powerhall_agent.base.encoder import Record, encode_all
from powerhall_agent.sampling.event_log import EventLog

__all__ = ["FailureLog", "encode_each"]

_AGAIN_S: Final = 60.0


class FailureLog:
    """Tells of exceptions from any thread; the same one again at most once a minute."""

    def __init__(self, events: EventLog, clock: Clock, log: Log) -> None:
        self._events, self._clock, self._log = events, clock, log
        self._quiet_until_s: dict[tuple[int | None, str], float] = {}

    def __call__(self, what: str, error: Exception, gpu: int | None = None) -> None:
        """Tell that a part of the sampler has failed, as far as it is known for which GPU."""
        detail = f"{what}: {type(error).__name__}: {error}"[:300]
        now_s = self._clock.monotonic_ns() / 1e9
        self._quiet_until_s = {key: until_s for key, until_s in self._quiet_until_s.items() if until_s > now_s}
        if (gpu, detail) in self._quiet_until_s:
            return
        self._quiet_until_s[gpu, detail] = now_s + _AGAIN_S
        self._log.exception("sampler_exception", error=error, gpu="" if gpu is None else gpu, detail=detail)
        self._events.put("sampler_exception", 0, detail, 2, self._clock.time_ns() // 1_000_000, gpu)


def encode_each(records: Sequence[Record], failed: Callable[[str, Exception], None]) -> bytes:
    """Encode records into lines; one that cannot be encoded costs none of the others."""
    try:
        return encode_all(records)
    except Exception:  # noqa: BLE001 - found again below
        lines = []
        for record in records:
            try:
                lines.append(record.line())
            except Exception as error:  # noqa: BLE001 - that record alone is left out
                failed(f"record of {record.series.measurement}", error)
        return b"".join(lines)
