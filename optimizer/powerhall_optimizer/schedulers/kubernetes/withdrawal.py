"""Releases what waits for an optimizer that plans no more: in the order of weight and age, as the power allows.

It needs the API server alone: no plan file, no store, no site file. The last round left the room of each zone in the
leader lease. Every GPU counts at its worst, a job that is not on nodes yet counts in every zone, and the first job
that has to wait keeps those behind it waiting, so that no large one waits for ever.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from powerhall.hostlist import expand
from powerhall.runtime.errors import PowerhallError, Rejected, Retryable
from powerhall.timeseries import parse_time
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.base import Command, WriteReport
from powerhall_optimizer.schedulers.kubernetes.api_client import Conflict, KubernetesApi, NotFound
from powerhall_optimizer.schedulers.kubernetes.decisions import JobPatch, is_left_alone, release
from powerhall_optimizer.schedulers.kubernetes.gangs import holders, owner, pod_groups
from powerhall_optimizer.schedulers.kubernetes.job_writes import JobWrites
from powerhall_optimizer.schedulers.kubernetes.jobs import job_gpus
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.kueue import Quota
from powerhall_optimizer.schedulers.kubernetes.leader_lease import Lead, taken_s
from powerhall_optimizer.schedulers.kubernetes.objects import Object, job_id, notes_of, part, status_of
from powerhall_optimizer.schedulers.kubernetes.ownership import QUEUE_LABEL
from powerhall_optimizer.schedulers.kubernetes.pod_requests import Holding, claims_devices, holdings
from powerhall_optimizer.schedulers.kubernetes.release_room import ReleaseRoom, ZoneRoom, read_room
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason

__all__ = ["withdraw"]

_ROUNDS = 2
"""A plan that is older than so many rounds is not renewed any more."""


def withdraw(
    api: KubernetesApi, settings: KubernetesSettings, lead: Lead, clock: Callable[[], float], *, dry_run: bool
) -> WriteReport:
    """Release jobs where the newest plan is older than two rounds; nothing while somebody plans."""
    try:
        lease = api.lease()
    except NotFound:
        raise Rejected("kubernetes: no plan was ever written here: there is no room to release into") from None
    notes = notes_of(lease)
    report = WriteReport("kubernetes", notes.get("plan", ""), dry_run)
    age_s = clock() - taken_s(lease)
    if age_s <= _ROUNDS * settings.round_s:
        return report
    room = read_room(notes.get("room", ""))
    if not dry_run:
        lead.take_over(lease)
    try:
        writes = JobWrites(api, lead, clock, report)
        one_pass = _Withdrawal(api, settings, writes, clock(), report, notes.get("site", ""))
        one_pass.run(room, texts.no_plan_text(age_s))
    finally:
        if not dry_run:
            with suppress(PowerhallError):  # it ends by itself
                lead.give_back()
    return report


@dataclass(slots=True)
class _Charge:
    """GPUs that are charged to a zone, at its worst watts each."""

    zone: ZoneRoom
    room_w: int
    nodes: frozenset[str]
    managed: int = 0
    others: int = 0
    """Of pods that are not managed."""

    @property
    def free_gpus(self) -> int:
        """How many more the zone's room has; less than 0 where it is exceeded."""
        grown = max(0, self.others - self.zone.others_gpus)
        return int(self.room_w // self.zone.gpu_w) - self.managed - grown

    def on(self, held: list[Holding]) -> int:
        """Return the GPUs of pods on the zone's nodes; all of a node where a pod's are not known."""
        return sum(one.gpus or self.zone.node_gpus for one in held if one.node in self.nodes)


@dataclass(slots=True)
class _Withdrawal:
    """One pass over the jobs."""

    api: KubernetesApi
    settings: KubernetesSettings
    writes: JobWrites
    now_s: float
    report: WriteReport
    site: str
    charges: dict[str, _Charge] = field(default_factory=dict)

    def run(self, room: ReleaseRoom, message: str) -> None:
        """Write the quota, and release jobs until one has to wait."""
        # Pods first: one that starts in between is counted by its job, which is listed later
        held: dict[str, list[Holding]] = {}
        for one in holdings(self.api.pods(), self.settings.gpu_resource):
            held.setdefault(one.owner, []).append(one)
        self.charges = {
            name: _Charge(zone, zone.watts(self.now_s), frozenset(expand(zone.nodes)))
            for name, zone in room.zones.items()
        }
        everything = (*self.api.gangs()[0], *self.api.jobs()[0])
        waiting = [raw for raw in everything if self._waits(raw, held)]
        for charge in self.charges.values():
            charge.others = sum(charge.on(pods) for pods in held.values())
        self._quota()
        waiting.sort(key=self._order)
        for number, raw in enumerate(waiting):
            if not self._release(raw, message):
                for behind in waiting[number + 1 :]:
                    value = f"{job_id(raw)} waits before it"
                    self.report.skip_job(job_id(behind), SkipReason(Skip.NO_ROOM, value=value))
                return

    def _waits(self, raw: Object, held: dict[str, list[Holding]]) -> bool:
        """Return whether a job waits for Powerhall; what it holds, or may take at any moment, is charged."""
        pods = [one for holder in holders(raw) for one in held.pop(holder, [])]
        for charge in self.charges.values():
            charge.managed += charge.on(pods)
        if status_of(raw) == "done" or owner(raw):  # what made it is charged for it
            return False
        if self._is_held(raw):
            return True
        more = max(0, self._gpus(raw) - sum(one.gpus for one in pods))
        for charge in self.charges.values():  # it may come anywhere
            charge.managed += more
        return False

    def _is_held(self, raw: Object) -> bool:
        if not part(raw, "spec").get("suspend"):
            return False
        if not part(raw, "metadata", "labels").get(QUEUE_LABEL):
            return True
        workload = self.writes.workloads.of(job_id(raw))
        return workload is not None and not part(workload, "spec").get("active", True)

    def _gpus(self, raw: Object) -> int:
        try:
            return job_gpus(raw, self.settings.gpu_resource)
        except Rejected:
            return 0  # the server runs no pods of it

    def _order(self, raw: Object) -> tuple[float, str, str]:
        try:
            specs = [group.spec for group in pod_groups(raw)]
        except Rejected:
            specs = []
        priority = next((str(spec["priorityClassName"]) for spec in specs if spec.get("priorityClassName")), "")
        weight = self.settings.fields.weights.get(priority, 1.0)
        return -weight, str(part(raw, "metadata").get("creationTimestamp") or ""), job_id(raw)

    def _release(self, raw: Object, message: str) -> bool:
        """Release one job; return False where it has to wait for power, or the server answers no more."""
        name = job_id(raw)
        try:
            gpus = job_gpus(raw, self.settings.gpu_resource)
        except Rejected as error:
            self.report.skip_job(name, SkipReason(Skip.NO_ROOM, value=f"its GPUs are not known: {error}"))
            return True
        try:
            if why := self._cannot(raw, gpus):
                self.report.skip_job(name, why)
                return True
            free = min((charge.free_gpus for charge in self.charges.values()), default=gpus)
            if gpus > free:
                value = f"{gpus} GPUs, and there is power for {max(0, free)}"
                self.report.skip_job(name, SkipReason(Skip.NO_ROOM, value=value))
                return False
            self.writes.write(name, raw, lambda now: self._decided(now, gpus, message))
        except PowerhallError as error:
            self.report.commands.append(Command(f"patch job {name}", f"job {name}", str(error)))
            return not isinstance(error, Retryable) or isinstance(error, Conflict)
        for charge in self.charges.values():
            charge.managed += gpus
        return True

    def _cannot(self, raw: Object, gpus: int) -> SkipReason | None:
        """Return why a job is passed over: it can never start so, not yet, or is somebody else's now."""
        if why := is_left_alone(raw):
            return why
        if any(claims_devices(group.spec) for group in pod_groups(raw)):
            return SkipReason(Skip.NO_ROOM, value="claims devices: its GPUs are not known")
        most = min((int(c.room_w // c.zone.gpu_w) for c in self.charges.values()), default=gpus)
        if gpus > most:
            return SkipReason(Skip.NO_ROOM, value=f"{gpus} GPUs, and the budget has power for {most}")
        earliest = notes_of(raw).get("earliest")
        try:
            is_early = earliest is not None and parse_time(earliest) > self.now_s
        except ValueError:
            is_early = False
        return SkipReason(Skip.NOT_BEFORE, value=str(earliest)) if is_early else None

    def _decided(self, raw: Object, gpus: int, message: str) -> JobPatch | SkipReason | None:
        if why := is_left_alone(raw):
            return why
        if job_gpus(raw, self.settings.gpu_resource) != gpus:
            return SkipReason(Skip.JOB_DIFFERS)
        if not part(raw, "spec").get("suspend"):
            return None
        return release(raw, self._queue_of(raw), message, self.settings.gpu_resource)

    def _queue_of(self, raw: Object) -> str:
        """Return the LocalQueue that a job goes to: its own, that of its hall, or the first of the settings."""
        label = str(part(raw, "metadata", "labels").get(QUEUE_LABEL) or "")
        notes, queues = notes_of(raw), self.settings.queues
        halls = (notes.get("hall", ""), *notes.get("halls", "").split())
        asked = next((queues[hall] for hall in halls if hall in queues), "")
        return label or asked or next(iter(queues.values()), "")

    def _quota(self) -> None:
        """Set Kueue's quota to the room: the last round may have died with it lowered, or before it was."""
        name = self.settings.cluster_queue
        if not name:
            return
        charge = self.charges.get(self.settings.zone or self.site)
        if charge is None:
            return
        each_w = self.settings.watts_per_gpu or charge.zone.gpu_w
        watts = int(max(0, charge.free_gpus + charge.managed) * each_w)
        try:
            Quota(self.api, self.settings).set(watts, self.report)
        except PowerhallError as error:
            self.report.commands.append(Command(f"quota of clusterqueue {name}: {watts} W", name, str(error)))
