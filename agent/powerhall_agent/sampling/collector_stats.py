"""Runs collectors and counts success and time per family: a broken sensor is reported as data and stops no other."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pynvml

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_agent.base.encoder import Fields
from powerhall_agent.collectors.collector import Collector
from powerhall_agent.nvml.codes import Action, action

__all__ = ["CollectorStats", "FamilyStats"]

T = TypeVar("T")
_log = Log(quiet=True)
_GPU_GONE = {Action.QUARANTINE, Action.REINIT, Action.RESPAWN, Action.STRIKE}


@dataclass(slots=True)
class FamilyStats:
    """Runs of one family of collectors since the last report."""

    name: str
    runs: int = 0
    failures: int = 0
    spent_ns: int = 0
    detail: str = ""
    last_logged: str = ""
    failed: Callable[[str, Exception], None] | None = None
    """Told of an exception that no sensor explains."""

    def run(self, collector: Collector) -> Fields:
        """Collect; a failed sensor gives no values. NVML errors that mean the GPU or the driver is gone are raised."""
        return self.call(collector.collect, {})

    def call(self, read: Callable[[], T], nothing: T) -> T:
        """Call any reading function as `run` does; a failed sensor gives `nothing`."""
        started_ns = time.perf_counter_ns()
        self.runs += 1
        try:
            return read()
        except pynvml.NVMLError as error:
            self._failed(str(error))
            if action(error.value) in _GPU_GONE:
                raise
        except (OSError, PowerhallError) as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a fault in one collector must not end the others
            self._failed(f"{type(error).__name__}: {error}")
            if self.failed is not None:
                self.failed(self.name, error)
        finally:
            self.spent_ns += time.perf_counter_ns() - started_ns
        return nothing

    def _failed(self, detail: str) -> None:
        self.failures += 1
        self.detail = detail
        if detail != self.last_logged:
            self.last_logged = detail
            _log.warning("collector_failed", family=self.name, detail=detail)

    def report(self) -> Fields:
        """Return success and mean duration since the last report, and reset them."""
        fields: dict[str, float | str] = {
            "success": 0.0 if self.failures else 1.0,
            "duration_s": self.spent_ns / self.runs / 1e9 if self.runs else 0.0,
        }
        if self.failures:
            fields["detail"] = self.detail[:200]
        self.runs = self.failures = 0
        self.spent_ns = 0
        self.detail = ""
        return fields


@dataclass(slots=True)
class CollectorStats:
    """The statistics of all families by name."""

    by_name: dict[str, FamilyStats] = field(default_factory=dict)
    failed: Callable[[str, Exception], None] | None = None

    def family(self, name: str) -> FamilyStats:
        """Return the family of this name, made at first use."""
        found = self.by_name.get(name)
        if found is None:
            found = self.by_name[name] = FamilyStats(name, failed=self.failed)
        return found
