"""Kueue's side of a plan: which Workloads may be admitted, and a quota of watts that follows the budget.

A lowered quota evicts nothing, and Kueue turns `suspend` back within seconds; only `spec.active: false` of a Workload
stops what it has admitted. https://kueue.sigs.k8s.io/docs/concepts/workload/#active
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import cast

from powerhall.plan.plan import Plan, ZonePlan
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall_optimizer.schedulers.allowed import allowed_units, budget_zone
from powerhall_optimizer.schedulers.base import Command, WriteReport
from powerhall_optimizer.schedulers.kubernetes.api_client import Conflict, KubernetesApi
from powerhall_optimizer.schedulers.kubernetes.gangs import GANG_KINDS
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.objects import Object, merged, named, objects, part
from powerhall_optimizer.schedulers.kubernetes.pod_requests import quantity
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason

__all__ = ["TRIES", "Quota", "Workloads"]

TRIES = 4
"""Attempts to write an object that others change at the same time."""
_KINDS = {"Job", *(one.kind for one in GANG_KINDS)}


class Workloads:
    """The Workloads of managed jobs, listed when first asked for."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._by_job: dict[str, Object] | None = None

    def of(self, job: str) -> Object | None:
        """Return the Workload of a job by its id; None where Kueue has made none yet."""
        if self._by_job is None:
            self._by_job = {}
            for raw in self._api.workloads():
                if _has_finished(raw):  # its job may have another one since
                    continue
                meta = part(raw, "metadata")
                for owner in objects(meta.get("ownerReferences")):
                    kind = str(owner.get("kind"))
                    if kind in _KINDS:
                        self._by_job[named(kind, meta.get("namespace"), owner.get("name"))] = raw
        return self._by_job.get(job)

    def set_active(self, job: str, active: bool, report: WriteReport) -> bool:
        """Let Kueue admit a job, or make it stop and keep it; return whether something was written."""
        raw = self.of(job)
        if raw is None or bool(part(raw, "spec").get("active", True)) == active:
            return False
        meta = part(raw, "metadata")
        namespace, name = str(meta.get("namespace")), str(meta.get("name"))
        text, error = f"{'admit' if active else 'hold'} {job}: workload {name}: active {active}".lower(), ""
        if not report.dry_run:
            try:
                after = self._api.patch_workload(namespace, name, {"spec": {"active": active}})
                if bool(part(after, "spec").get("active", True)) != active:
                    error = "reads back otherwise"
            except PowerhallError as refused:
                error = str(refused)
        report.commands.append(Command(text, f"job {job}", error))
        return True


def _has_finished(workload: Object) -> bool:
    conditions = objects(part(workload, "status").get("conditions"))
    return any(one.get("type") == "Finished" and one.get("status") == "True" for one in conditions)


class Quota:
    """The quota of a ClusterQueue in the watts that Kueue counts: `watts_per_gpu` for each GPU, whatever its mode."""

    def __init__(self, api: KubernetesApi, settings: KubernetesSettings) -> None:
        self._api, self._settings = api, settings
        self._halls: Mapping[str, int] = MappingProxyType({})

    def wanted(self, plan: Plan, now_s: float) -> int | None:
        """Return the quota now: what the plan's jobs count, and the power that is left; None without a budget."""
        zone = budget_zone(plan, self._settings.zone, "kubernetes.zone") if self._settings.cluster_queue else None
        if zone is None:
            return None
        snapshot = plan.snapshot
        slot = min(snapshot.slots - 1, max(0, int(now_s - snapshot.start_s) // snapshot.slot_s))
        room_w, used_w = allowed_units(plan, zone, 1.0)[slot]
        each_w = self._settings.watts_per_gpu
        self._halls = _planned_w(plan, zone, slot, each_w)
        counted_w = sum(self._halls.values()) if each_w else used_w
        return counted_w + room_w - used_w

    def set(self, watts: int, report: WriteReport) -> None:
        """Set the quota, up or down."""
        if self.write(watts, report, lower=True):
            self.write(watts, report, lower=False)

    def write(self, watts: int, report: WriteReport, *, lower: bool) -> bool:
        """Set the quota, only a smaller one with `lower`; return whether a larger one is still to be set.

        Flavours that are named as halls get what the plan has there, and what is left alike; others share it as they
        share what they have. In a cohort the queue borrows nothing beyond it.
        """
        name = self._settings.cluster_queue
        for _ in range(TRIES):
            queue = self._api.cluster_queue(name)
            entries = _watts_of(_groups(queue), self._settings.watts_resource)
            if not entries:
                report.skip(f"clusterqueue {name}", SkipReason(Skip.NO_QUOTA, self._settings.watts_resource))
                return False
            before_w, found = _sum_w(entries), [entry.get("nominalQuota") for entry in entries]
            wanted, target = self._shares(queue, watts, lower=lower and before_w is not None)
            had, target_w = [_w(one) or 0 for one in found], sum(target)
            if not _set(entries, target, can_borrow=_is_in_cohort(queue)):
                return wanted != target
            before = f"{before_w} W" if before_w is not None else ", ".join(map(repr, found))[:40]
            more = "" if before_w != target_w else ", and no borrowing" if had == target else ", by hall"
            text = f"quota of clusterqueue {name}: {before} to {target_w} W{more}"
            if report.dry_run:
                report.commands.append(Command(text, f"clusterqueue {name}"))
                return wanted != target
            try:
                self._patch(queue)
            except Conflict:
                continue
            after = self._api.cluster_queue(name)
            left = _watts_of(_groups(after), self._settings.watts_resource)
            is_right = not _set(left, target, can_borrow=_is_in_cohort(after))
            error = "" if is_right else f"reads back as {_sum_w(left)} W, or may borrow"
            if before_w is None and not error:
                error = f"{before} is no quota of watts: what Kueue admitted by it is not known, and it is overwritten"
            report.commands.append(Command(text, f"clusterqueue {name}", error))
            return wanted != target and not error
        report.commands.append(Command(f"quota of clusterqueue {name}", name, "changed by others again and again"))
        return False

    def _shares(self, queue: Object, watts: int, *, lower: bool) -> tuple[list[int], list[int]]:
        """Return the quota of each flavour, and what of it is to be set now: none rises with `lower`."""
        flavours = _flavours_with(_groups(queue), self._settings.watts_resource)
        names = [name for name, _ in flavours]
        had = [_w(entry.get("nominalQuota")) or 0 for _, entry in flavours]
        is_by_hall = len(names) > 1 and len(set(names)) == len(names) and self._halls.keys() >= set(names)
        if is_by_hall and (left := watts - sum(self._halls[name] for name in names)) >= 0:
            wanted = [self._halls[name] + left // len(names) for name in names]
            wanted[0] += watts - sum(wanted)
            return wanted, list(map(min, wanted, had)) if lower else wanted
        return _like(had, watts), _like(had, min(watts, sum(had)) if lower else watts)

    def _patch(self, queue: Object) -> None:
        version = part(queue, "metadata").get("resourceVersion")
        groups = part(queue, "spec")["resourceGroups"]
        patch: Object = {"metadata": {"resourceVersion": version}, "spec": {"resourceGroups": groups}}
        self._api.cluster_queue(self._settings.cluster_queue, patch)

    def check_effective(self, watts: int, report: WriteReport) -> None:
        """Raise an alarm where another quota than the nominal one counts and is above the budget.

        Kueue's orchestrator of quotas may put one into the status (feature gate DynamicQuotaOrchestration, KEP-12382).
        """
        queue = self._api.cluster_queue(self._settings.cluster_queue)
        found = list(_effective_w(part(queue, "status").get("effectiveQuotas"), self._settings.watts_resource))
        effective_w = None if None in found else sum(each or 0 for each in found)
        if effective_w is None or effective_w > watts:
            name = self._settings.cluster_queue
            counts = f"{effective_w} W" if effective_w is not None else "what is no quota of watts"
            error = f"Kueue counts {counts} by status.effectiveQuotas: its orchestrator must leave the queue alone"
            report.commands.append(Command(f"quota of clusterqueue {name}: {watts} W", f"clusterqueue {name}", error))


def _planned_w(plan: Plan, zone: ZonePlan, slot: int, each_w: float) -> dict[str, int]:
    """Return what Kueue counts of the plan's jobs in a slot, by hall of a zone; `each_w` for a GPU, 0: its power."""
    snapshot = plan.snapshot
    begin_s = snapshot.start_s + slot * snapshot.slot_s
    found = {hall.zone: 0 for hall in snapshot.site.halls if zone.zone in (snapshot.site.name, hall.zone)}
    for job in plan.assignments:
        if job.start_s < begin_s + snapshot.slot_s and job.end_s > begin_s and job.hall in found:
            found[job.hall] += round(job.gpus * (each_w or job.gpu_power_w))
    return found


def _like(had: Sequence[int], watts: int) -> list[int]:
    """Share a quota out to the flavours as they share what they have."""
    if sum(had) == watts:
        return list(had)
    shares = [watts * one // (sum(had) or 1) for one in had]
    shares[0] += watts - sum(shares)
    return shares


def _w(value: object) -> int | None:
    """Return a quota in W; None where it is none that can be (missing, negative, without a bound)."""
    try:
        return quantity(value)
    except Rejected:
        return None


def _sum_w(entries: list[Object]) -> int | None:
    """Return the quota of all flavours in W; None where that of one is none."""
    each = [_w(entry.get("nominalQuota")) for entry in entries]
    return None if None in each else sum(one or 0 for one in each)


def _set(entries: list[Object], shares: Sequence[int], *, can_borrow: bool) -> bool:
    """Set the quota of each flavour, and close what lets more in; return whether that changes something."""
    changed = False
    for entry, share in zip(entries, shares, strict=True):
        if _w(entry.get("nominalQuota")) != share:
            entry["nominalQuota"], changed = str(share), True
        if can_borrow and _w(entry.get("borrowingLimit")) != 0:
            entry["borrowingLimit"], changed = "0", True
        lends = entry.get("lendingLimit")
        if lends is not None and (_w(lends) is None or (_w(lends) or 0) > share):  # Kueue refuses the queue otherwise
            entry["lendingLimit"], changed = str(share), True
    return changed


def _is_in_cohort(queue: Object) -> bool:
    spec = part(queue, "spec")
    return bool(spec.get("cohortName") or spec.get("cohort"))  # before v1beta2


def _groups(queue: Object) -> list[Object]:
    return objects(part(queue, "spec").get("resourceGroups"))


_QUOTAS = ("nominalQuota", "effectiveQuota", "quota", "value", "total")


def _effective_w(found: object, resource: str) -> Iterator[int | None]:
    """Yield each quota of a resource in `status.effectiveQuotas`, whose form is Kueue's; None where it is none."""
    if isinstance(found, list):
        for one in cast("list[object]", found):
            yield from _effective_w(one, resource)
    elif isinstance(found, dict):
        entry = cast("Object", found)
        if resource in (entry.get("name"), entry.get("resource")):
            yield _w(next((entry[key] for key in _QUOTAS if key in entry), None))
            return
        for key, value in entry.items():
            if key == resource and not isinstance(value, dict | list):
                yield _w(value)
            elif key == resource:
                yield from _effective_w(merged({"name": resource}, part(entry, key)), resource)
            else:
                yield from _effective_w(value, resource)


def _watts_of(groups: list[Object], resource: str) -> list[Object]:
    """Return the entries of all flavours with this resource."""
    return [entry for _, entry in _flavours_with(groups, resource)]


def _flavours_with(groups: list[Object], resource: str) -> list[tuple[str, Object]]:
    """Return name and entry of all flavours with this resource."""
    flavours = [flavour for group in groups for flavour in objects(group.get("flavors"))]
    return [
        (str(one.get("name")), entry)
        for one in flavours
        for entry in objects(one.get("resources"))
        if entry.get("name") == resource
    ]
