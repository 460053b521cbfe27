"""The plan that events act on: read again when its file changes; where that fails, the last good one stays in force."""

import threading
from pathlib import Path

from powerhall.plan.plan import Plan, read_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.leases.plan_in_force import check_present

__all__ = ["KeptPlan"]

_Stamp = tuple[int, int, int]


class KeptPlan:
    """One plan file; safe with several threads."""

    def __init__(self, path: Path, log: Log) -> None:
        """Read the first plan; one that cannot be read raises Rejected or ConfigError."""
        self._path, self._log, self._lock = path, log, threading.Lock()
        self._stamp = self._stamp_now()
        self.plan: Plan = read_plan(path)
        self.problem = ""
        """Why the file's plan is not in force, or ""."""

    def look(self, now_s: float) -> None:
        """Take the plan of the file where it is another one; where that cannot be, `problem` says why."""
        with self._lock:
            stamp = self._stamp_now()
            if stamp is None or stamp != self._stamp:
                try:
                    self.plan = self._read(now_s)
                except Rejected as error:
                    self.problem = str(error)
                    detail = f"{error}; plan {self.plan.plan_id[:12]} stays in force"
                    self._log.warning("shed_plan", key="", detail=detail)
                    return
                self._stamp = stamp
            self.problem = ""
            self._log.forget("shed_plan")

    def present(self, now_s: float) -> Plan:
        """Return the newest good plan; one that does not cover now raises Rejected."""
        self.look(now_s)
        check_present(self.plan, str(self._path), now_s)
        return self.plan

    def _read(self, now_s: float) -> Plan:
        plan, site = read_plan(self._path), self.plan.snapshot.site.name
        if plan.snapshot.site.name != site:
            raise Rejected.field(str(self._path), "site", plan.snapshot.site.name, f"must be {site!r}, as at the start")
        check_present(plan, str(self._path), now_s)
        return plan

    def _stamp_now(self) -> _Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
