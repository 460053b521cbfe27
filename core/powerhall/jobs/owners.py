"""Who pays for a job: projects and tenants by job, user or project, from one CSV file.

Columns: `job` and `user_hash` are names or patterns (`team-a/*`), `project` and `tenant` are what they belong to. A row
with a job or a user gives its jobs a project, a tenant or both; a row with neither gives a project its tenant. The
first row that fits counts. What no row says the scheduler's queue may: the account of a Slurm job is its project, and
so is the namespace of a job of Kubernetes (`NAMESPACE/NAME`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from powerhall.runtime.decode.csv_table import read_csv
from powerhall.runtime.errors import Rejected

__all__ = ["NOBODY", "Owner", "OwnerRule", "Owners", "read_owners"]

NOBODY = "-"
"""Project or tenant of a job that no row names."""
_COLUMNS = ("job", "user_hash", "project", "tenant")


@dataclass(frozen=True, slots=True)
class Owner:
    """Project and tenant of a job, `-` where nobody is named."""

    project: str = NOBODY
    tenant: str = NOBODY


@dataclass(frozen=True, slots=True)
class OwnerRule:
    """One row: patterns of job and user (empty: any), and what they belong to (empty: not said)."""

    job: str = ""
    user_hash: str = ""
    project: str = ""
    tenant: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether it names one job, so that a table finds it."""
        return bool(self.job) and not self.user_hash and not set(self.job) & set("*?[")

    def fits(self, job: str, user_hash: str) -> bool:
        """Whether the row is about this job of this user."""
        if not self.job and not self.user_hash:
            return False
        return _fits(self.job, job) and _fits(self.user_hash, user_hash)


def _fits(pattern: str, name: str) -> bool:
    return not pattern or fnmatchcase(name, pattern)


def _namespace(job: str) -> str:
    space, slash, _ = job.partition("/")
    return space if slash else ""


@dataclass(slots=True)
class Owners:
    """Owners of jobs by the rows of a file; without rows every job is nobody's."""

    rules: tuple[OwnerRule, ...] = ()
    _exact: dict[str, tuple[int, OwnerRule]] = field(init=False, default_factory=dict)
    _patterns: list[tuple[int, OwnerRule]] = field(init=False, default_factory=list)
    _tenants: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the rows: tens of thousands of exact jobs are looked up, patterns are tried one by one."""
        for number, rule in enumerate(self.rules):
            if rule.is_exact:
                self._exact.setdefault(rule.job, (number, rule))
            elif rule.job or rule.user_hash:
                self._patterns.append((number, rule))
            else:
                self._tenants.setdefault(rule.project, rule.tenant)

    def of(self, job: str, user_hash: str = "", project: str = "", tenant: str = "") -> Owner:
        """Return the owner of a job; `project` and `tenant` are what its queue says, which counts after the file."""
        rule = self._rule(job, user_hash)
        project = rule.project or project or _namespace(job)
        tenant = rule.tenant or tenant or self._tenants.get(project, "")
        return Owner(project or NOBODY, tenant or NOBODY)

    def tenants(self) -> set[str]:
        """Return every tenant that a row names."""
        return {rule.tenant for rule in self.rules}

    def tenants_of_users(self) -> set[str]:
        """Return the tenants that rows with a user's hash lead to, by themselves or by their project."""
        rules = (rule for _, rule in self._patterns if rule.user_hash)
        return {rule.tenant or self._tenants.get(rule.project, "") for rule in rules} - {""}

    def _rule(self, job: str, user_hash: str) -> OwnerRule:
        found = self._exact.get(job)
        for number, rule in self._patterns:
            if found is not None and found[0] < number:
                break
            if rule.fits(job, user_hash):
                return rule
        return OwnerRule() if found is None else found[1]


def read_owners(path: str | Path | None) -> Owners:
    """Read a file of owners; no file gives no owners. A wrong file raises Rejected with line and column."""
    if path is None:
        return Owners()
    table = read_csv(path)
    source = str(path)
    if not set(table.header) & {"job", "user_hash", "project"} or not set(table.header) & {"project", "tenant"}:
        header = ",".join(table.header)[:200]
        raise Rejected.field(source, "header", header, f"must have columns among {', '.join(_COLUMNS)}")
    return Owners(tuple(_rules(table, source)))


def _rules(rows: Iterable[tuple[int, dict[str, str | None]]], source: str) -> Iterable[OwnerRule]:
    for line, cells in rows:
        job, user, project, tenant = ((cells.get(name) or "").strip() for name in _COLUMNS)
        if not (job or user) and not (project and tenant):
            raise Rejected.field(source, f"line {line}: job", job, "must be given, or user_hash, or project and tenant")
        if not project and not tenant:
            raise Rejected.field(source, f"line {line}: project", project, "must be given, or tenant")
        yield OwnerRule(job, user, project, tenant)
