"""A plan of several sites: one plan per site, the whole queue, and one bound and certificate for all."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from powerhall.jobs.model import Job
from powerhall.plan.plan import (
    READ_VERSIONS,
    Certificate,
    Changes,
    Plan,
    SeveralSites,
    Snapshot,
    check_plan,
    hashed_fields,
    read_plan,
)
from powerhall.runtime.errors import Rejected
from powerhall.runtime.files import replace_file
from powerhall.runtime.settings import read_json

__all__ = ["MultiSitePlan", "multi_site_hash", "read_multi_site_plan", "read_plans", "write_multi_site_plan"]


class MultiSitePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plans of several sites made together.

    Every job of the queue `jobs` stands in the snapshot of exactly one plan: of the site where it runs or will run, or
    for a waiting job of the site that fits it best. Names in the certificate are `SITE:RESOURCE`; value and
    bound are those of all sites together. The sites share start, slots and objective.
    """

    version: int
    plan_id: str
    created_s: int
    status: Literal["optimal", "feasible", "fallback"]
    value: int
    bound: int
    gap: float
    jobs: tuple[Job, ...]
    plans: tuple[Plan, ...]
    certificate: Certificate | None = None
    notes: tuple[str, ...] = ()
    solve_s: float = 0.0
    work: dict[str, int] = {}
    cut_short: tuple[str, ...] = ()
    changes: Changes | None = None


def multi_site_hash(snapshots: Sequence[Snapshot], jobs: tuple[Job, ...]) -> str:
    """Return the SHA-256 of the sites' snapshots with the whole queue: the id of the plan of these sites."""
    plain = msgspec.json.decode(msgspec.json.encode(jobs), type=tuple[Job, ...])
    inputs = [hashed_fields(msgspec.structs.replace(s, jobs=())) for s in snapshots], plain
    return hashlib.sha256(msgspec.json.encode(inputs, order="sorted")).hexdigest()


def read_multi_site_plan(path: str | Path) -> MultiSitePlan:
    """Read a plan of several sites; a truncated, unfitting or newer file raises Rejected or ConfigError."""
    plan = read_json(path, MultiSitePlan)
    if plan.version not in READ_VERSIONS:
        raise Rejected.field(str(path), "version", plan.version, f"must be {' or '.join(map(str, READ_VERSIONS))}")
    for part in plan.plans:
        check_plan(part, str(path))
    return plan


def read_plans(path: str | Path) -> Plan | MultiSitePlan:
    """Read a plan of one site or of several, whichever the file holds."""
    return read_multi_site_plan(path) if bytes(read_json(path, SeveralSites).plans) else read_plan(path)


def write_multi_site_plan(plan: MultiSitePlan, path: str | Path) -> None:
    """Write the file in one step: a reader sees the old one or the new one, never half of one."""
    replace_file(path, msgspec.json.encode(plan))
