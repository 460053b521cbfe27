"""Reads the queue of a Kubernetes cluster: managed Jobs and gangs, whatever else holds GPUs, and the nodes' state."""

import time
from collections.abc import Callable, Sequence
from typing import cast

from powerhall.hostlist import compress
from powerhall.jobs.left_out import LeftOut as CountedJob
from powerhall.jobs.left_out import LeftOutCode
from powerhall.jobs.model import Job
from powerhall.runtime.errors import ConfigError
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.base import Queue, counted_job
from powerhall_optimizer.schedulers.kubernetes.api_client import KubernetesApi, NotFound, open_api
from powerhall_optimizer.schedulers.kubernetes.confinement import Confinement
from powerhall_optimizer.schedulers.kubernetes.gangs import holders
from powerhall_optimizer.schedulers.kubernetes.gpu_parts import PartNodes, claim_reader
from powerhall_optimizer.schedulers.kubernetes.jobs import gpus_by_node, to_job
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.objects import Object, job_id, objects, part, status_of
from powerhall_optimizer.schedulers.kubernetes.pod_requests import Holding, holdings
from powerhall_optimizer.schedulers.kubernetes.unbound_pods import admitted_gpus, in_each_hall, with_unbound
from powerhall_optimizer.schedulers.kubernetes.written_modes import known_modes
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause

__all__ = ["KubernetesReader"]

Clock = Callable[[], float]
_CLOSING_EFFECTS = ("NoSchedule", "NoExecute")


class KubernetesReader:
    """Reads Jobs, JobSets, RayJobs, pods and nodes; the site's nodes carry the names of the cluster's.

    Every pod that holds GPUs is counted on its node, whoever made it: those of a managed Job as that job, all others
    (Deployments, Jobs without the label, bare pods) as a running job that is not planned with. Pods of a managed job
    that is admitted count from then on, on free nodes until they are bound.
    """

    def __init__(
        self, site: Site, settings: KubernetesSettings, api: KubernetesApi | None = None, clock: Clock = time.time
    ) -> None:
        self._site, self._settings, self._clock = site, settings, clock
        self._api = api or open_api(settings)

    def read(self) -> Queue:
        """Return jobs and nodes as they are now."""
        # Pods first: one that starts in between is counted by its job, which is listed later
        held: dict[str, list[Holding]] = {}
        away: dict[str, int] = {}
        racks = SiteIndex.of(self._site).rack_of
        pods, nodes, modes = self._api.pods(), self._api.nodes(), self._modes()
        offers = PartNodes.read(self._site, nodes)
        choice = Confinement(self._site, nodes, self._settings)
        for one in holdings(pods, self._settings.gpu_resource, claim_reader(pods, self._api.resource_claims)):
            if one.node in racks:  # a cluster may have nodes of other sites
                held.setdefault(one.owner, []).append(one)
            else:
                away[one.owner] = away.get(one.owner, 0) + one.gpus
        closed = self._closed_nodes(nodes)
        free = self._free_gpus(held, closed)
        jobs: list[Job] = []
        gangs, refused = self._api.gangs()
        left_out = {name: texts.left_out_text(LeftOut(LeftOutCause.NOT_LISTED, name, why)) for name, why in refused}
        for raw in (*gangs, *self._api.jobs()[0]):
            name = job_id(raw)
            on = [one for holder in holders(raw) for one in held.pop(holder, [])]
            is_over = status_of(raw) == "done" or bool(part(raw, "metadata").get("deletionTimestamp"))
            if is_over and not on:
                continue
            made = to_job(raw, self._site, self._settings, on, offers, now_s=self._clock(), choice=choice, modes=modes)
            if on and isinstance(made, Job) and (is_over or made.state != "running"):
                made = LeftOut(LeftOutCause.ENDING)
            more = 0 if is_over else self._unbound(raw, made, on) - sum(away.get(one, 0) for one in holders(raw))
            may = choice.reach(raw)
            if isinstance(made, Job) and made.nodes == "":  # it may come to several halls
                each = in_each_hall(name, made.gpus, self._site, free, may)
                jobs += map(counted_job, each) if each else [made]
            elif isinstance(made, Job):
                made, more = with_unbound(made, more, self._site, free, may)
                jobs.append(made)
            else:
                left_out[name] = texts.left_out_text(made)
                jobs += [self._counted(name, on)] if on else []
            if more > 0:  # wherever they will run
                entry = CountedJob(f"Unbound:{name}", LeftOutCode.COUNTED, "", running=True, gpus=more)
                jobs.append(counted_job(entry))
        jobs += [self._counted(owner.replace(" ", ":"), on) for owner, on in sorted(held.items())]
        return Queue(int(self._clock()), tuple(jobs), closed, left_out)

    def _modes(self) -> dict[str, str]:
        """Return the modes that rounds wrote; none where there is no lease, or it may not be read."""
        try:
            return known_modes(self._api.lease())
        except (NotFound, ConfigError):
            return {}

    def _free_gpus(self, held: dict[str, list[Holding]], closed: Sequence[str]) -> dict[str, int]:
        """Return the GPUs that no pod holds, by node that takes pods."""
        on = gpus_by_node(self._site, [one for pods in held.values() for one in pods])
        racks, kinds = SiteIndex.of(self._site).rack_of, self._site.node_types
        return {
            node: kinds[rack.node_type].gpus - on.get(node, 0) for node, rack in racks.items() if node not in closed
        }

    def _unbound(self, raw: Object, made: Job | LeftOut, on: list[Holding]) -> int:
        """Return the GPUs of an admitted job that its pods do not hold yet; 0 where the job has them already."""
        if status_of(raw) != "running":
            return 0
        counts_elsewhere = (LeftOutCause.PART_OF_JOB, LeftOutCause.NO_GPUS, LeftOutCause.ENDING)
        if made.cause in counts_elsewhere if isinstance(made, LeftOut) else not on:
            return 0
        bound = sum(gpus_by_node(self._site, on).values())
        return max(0, admitted_gpus(raw, self._settings.gpu_resource, self._site) - bound)

    def _counted(self, name: str, held: list[Holding]) -> Job:
        """Return a running job that is counted on its nodes and not planned with."""
        on = gpus_by_node(self._site, held)
        gpus, nodes = tuple(on.values()), compress(on)
        return counted_job(
            CountedJob(name, LeftOutCode.COUNTED, "", running=True, gpus=sum(gpus), nodes=nodes, gpus_on_nodes=gpus)
        )

    def _closed_nodes(self, nodes: Sequence[Object]) -> tuple[str, ...]:
        """Return the site's nodes that take nothing new; one that the cluster does not know is among them."""
        usable = {str(part(node, "metadata").get("name")) for node in nodes if self._is_usable(node)}
        return tuple(node for node in SiteIndex.of(self._site).rack_of if node not in usable)

    def _is_usable(self, node: Object) -> bool:
        conditions = objects(part(node, "status").get("conditions"))
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
        closed = any(
            taint.get("effect") in _CLOSING_EFFECTS and taint.get("key") not in self._settings.tolerations
            for taint in objects(part(node, "spec").get("taints"))
        )
        return ready and not closed and not cast("bool", part(node, "spec").get("unschedulable"))
