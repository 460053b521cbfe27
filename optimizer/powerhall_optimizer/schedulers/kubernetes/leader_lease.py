"""Leader lease: of several optimizers at most one writes. A lease is held by name and ends by itself.

Under one name the process that took it last writes: the one before, which may only have been slow, finds its mark
replaced before its next write, and ends.
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import cast

import msgspec

from powerhall.plan.plan import Plan
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import Rejected, Retryable
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.kubernetes.api_client import Conflict, KubernetesApi, NotFound
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.objects import PREFIX, Object, notes_of, part
from powerhall_optimizer.schedulers.kubernetes.release_room import room_of
from powerhall_optimizer.schedulers.kubernetes.written_modes import MODES, known_modes, modes_text, planned_modes

__all__ = ["Lead", "taken_s"]


class Lead:
    """The lead of one process, for one round."""

    def __init__(
        self, api: KubernetesApi, settings: KubernetesSettings, holder: str, clock: Callable[[], float]
    ) -> None:
        self._api, self._settings, self._clock = api, settings, clock
        self.holder = holder
        self._mark = uuid.uuid4().hex
        self._modes: dict[str, str] = {}

    def take(self, plan: Plan) -> None:
        """Take the lease for a plan; Retryable names the holder where another one leads.

        Of two concurrent attempts one gets Conflict by the object's version. The lease remembers the newest plan that
        was written, with the power that jobs may hold once nobody plans; an older plan, or one of another site, is
        Rejected.
        """
        notes = _notes(plan)
        try:
            lease = self._api.lease()
        except NotFound:
            name = {"name": self._settings.lease_name, "namespace": self._settings.lease_namespace}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": name}
            self._write(lease, notes, create=True)
            return
        _check_newest(lease, plan)
        had = known_modes(lease)
        self._modes = {mark: mode for mark, mode in planned_modes(plan).values() if had.get(mark) == mode}
        self._write(lease, notes | _modes_note(self._modes))

    def take_over(self, lease: Object) -> None:
        """Take the lease as it was read, without a plan; Retryable where another one leads, or took it since."""
        self._write(lease, {})

    def keep(self) -> None:
        """Verify before a write that this process still leads, and renew the lease; Retryable where it does not."""
        lease = self._api.lease()
        spec = part(lease, "spec")
        if spec.get("holderIdentity") != self.holder or notes_of(lease).get("writer") != self._mark:
            raise Retryable(texts.NO_LEADER)
        if self._clock() > _time(spec.get("renewTime")) + self._settings.lease_s / 2:
            self._write(lease, {})

    def note_modes(self, written: Mapping[str, str]) -> None:
        """Note the modes of jobs that this round wrote, by their marks, beside those that stay; Retryable as `keep`."""
        if any(self._modes.get(mark) != mode for mark, mode in written.items()):
            self.keep()
            self._modes |= written
            self._write(self._api.lease(), _modes_note(self._modes))

    def give_back(self) -> None:
        """Give the lease back where it is still this process's, so that the next optimizer need not wait."""
        lease = self._api.lease()
        spec = part(lease, "spec")
        if notes_of(lease).get("writer") == self._mark:
            self._api.lease(lease | {"spec": {key: spec[key] for key in spec if key != "holderIdentity"}})

    def _write(self, lease: Object, notes: Object, *, create: bool = False) -> None:
        annotations = part(lease, "metadata", "annotations") | notes | {f"{PREFIX}writer": self._mark}
        body = lease | {"metadata": part(lease, "metadata") | {"annotations": annotations}, "spec": self._spec(lease)}
        try:
            self._api.lease(body, create=create)
        except Conflict:
            raise Retryable(texts.NO_LEADER) from None

    def _spec(self, lease: Object) -> Object:
        """Return the lease's specification, held by this holder; Retryable where another one leads."""
        old, now_s = part(lease, "spec"), self._clock()
        leader = old.get("holderIdentity")
        until_s = _time(old.get("renewTime")) + float(cast("int", old.get("leaseDurationSeconds") or 0))
        if leader and leader != self.holder and until_s > now_s:
            raise Retryable(
                f"kubernetes: {leader} leads for another {until_s - now_s:.0f} s: this optimizer writes nothing"
            )
        stamp = _stamp(now_s)
        spec: Object = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self._settings.lease_s,
            "renewTime": stamp,
        }
        if leader != self.holder:
            transitions = cast("int", old.get("leaseTransitions") or 0) + (1 if old else 0)
            spec |= {"acquireTime": stamp, "leaseTransitions": transitions}
        return old | spec


def taken_s(lease: Object) -> int:
    """Return when the snapshot of the newest plan was taken, in s; 0 where no plan was written."""
    return digits(notes_of(lease).get("plan-taken", "")) or 0


def _time(text: object) -> float:
    return datetime.fromisoformat(str(text)).timestamp() if text else 0.0


def _stamp(now_s: float) -> str:
    """Return a time as the server wants it: with a fraction, which the client drops where it is 0."""
    moment = datetime.fromtimestamp(now_s, UTC)
    moment = moment.replace(microsecond=moment.microsecond or 1)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _notes(plan: Plan) -> Object:
    return {
        f"{PREFIX}site": plan.snapshot.site.name,
        f"{PREFIX}plan": plan.plan_id,
        f"{PREFIX}plan-taken": str(plan.snapshot.taken_s),
        f"{PREFIX}room": msgspec.json.encode(room_of(plan)).decode(),
    }


def _modes_note(modes: Mapping[str, str]) -> Object:
    return {f"{PREFIX}{MODES}": msgspec.json.encode(modes_text(modes)).decode()}


def _check_newest(lease: Object, plan: Plan) -> None:
    last = notes_of(lease)
    site = last.get("site", plan.snapshot.site.name)
    if site != plan.snapshot.site.name:
        raise Rejected(texts.other_site_text(plan.plan_id, plan.snapshot.site.name, site))
    newest_s = taken_s(lease)
    if plan.snapshot.taken_s < newest_s:
        raise Rejected(texts.older_plan_text(plan.plan_id, newest_s - plan.snapshot.taken_s, last.get("plan", "")))
