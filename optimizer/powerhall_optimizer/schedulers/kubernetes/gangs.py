"""Jobs of several parts: JobSets, RayJobs and LeaderWorkerSets beside Kubernetes' own Jobs.

Each kind says which pods it makes, and under which owner they are found. What of a shape is not understood is left out
of the plan, and its pods are counted where they run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.kubernetes.objects import Object, merged, named, objects, part
from powerhall_optimizer.schedulers.kubernetes.pod_requests import gpus_of, quantity
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause

__all__ = [
    "GANG_KINDS",
    "GangKind",
    "PodGroup",
    "edited_spec",
    "gang_of",
    "gpu_groups",
    "holders",
    "owner",
    "pod_groups",
    "pod_label",
    "unlike_a_gang",
]


@dataclass(frozen=True, slots=True)
class GangKind:
    """A kind of the API: its group and its plural."""

    kind: str
    group: str
    plural: str


GANG_KINDS = (
    GangKind("JobSet", "jobset.x-k8s.io", "jobsets"),
    GangKind("RayJob", "ray.io", "rayjobs"),
    GangKind("LeaderWorkerSet", "leaderworkerset.x-k8s.io", "leaderworkersets"),
)
_KEEPERS = (*(one.group for one in GANG_KINDS), "kubeflow.org", "trainer.kubeflow.org")
"""Groups whose controllers set `suspend` of the Jobs that they make."""
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"


@dataclass(frozen=True, slots=True)
class PodGroup:
    """Pods of one template that run at once."""

    count: int
    template: Object

    @property
    def spec(self) -> Object:
        """The specification of one pod."""
        return part(self.template, "spec")


def gang_of(short: str) -> tuple[GangKind, str] | None:
    """Return kind and name of KIND/NAME; None for a Job, whose name is alone."""
    kind, _, name = short.rpartition("/")
    return next(((one, name) for one in GANG_KINDS if one.kind.lower() == kind), None)


def pod_groups(raw: Object) -> tuple[PodGroup, ...]:
    """Return the pods that a job may hold at once; Rejected where a number is none, or there is no most."""
    match raw.get("kind"):
        case "JobSet":
            return tuple(_replicated(part(raw, "spec")))
        case "RayJob":
            return tuple(_ray(part(raw, "spec")))
        case "LeaderWorkerSet":
            return tuple(_leader_and_workers(part(raw, "spec")))
        case _:
            return (PodGroup(_parallel(part(raw, "spec"), part(raw, "status")), part(raw, "spec", "template")),)


def edited_spec(raw: Object, edits: Sequence[Object]) -> Object:
    """Return the part of a merge patch of a job's spec that edits the pods of its groups, in their order.

    Each edit is a merge patch of a pod's specification. Lists of a merge patch are whole ones.
    """
    if not any(edits):
        return {}
    spec, left = part(raw, "spec"), list(edits)
    match raw.get("kind"):
        case "JobSet":
            jobs = objects(spec.get("replicatedJobs"))
            pairs = zip(jobs, left, strict=True)
            deep = [merged(job, {"template": {"spec": {"template": {"spec": edit}}}}) for job, edit in pairs]
            return {"replicatedJobs": deep}
        case "RayJob":
            more: Object = {}
            if spec.get("submitterPodTemplate"):
                more["submitterPodTemplate"] = {"spec": left.pop(0)}
            head = left.pop(0)
            workers = zip(objects(part(spec, "rayClusterSpec").get("workerGroupSpecs")), left, strict=True)
            groups = [merged(one, {"template": {"spec": edit}}) for one, edit in workers]
            cluster: Object = {"headGroupSpec": {"template": {"spec": head}}, "workerGroupSpecs": groups}
            return more | {"rayClusterSpec": cluster}
        case _:
            return {"template": {"spec": left[0]}}


def gpu_groups(raw: Object, resource: str) -> tuple[PodGroup, ...]:
    """Return those of the pods that ask for GPUs."""
    return tuple(one for one in pod_groups(raw) if one.count and gpus_of(one.spec, resource))


def holders(raw: Object) -> tuple[str, ...]:
    """Return the owners (KIND NAMESPACE/NAME) under which the pods of a job are found."""
    meta = part(raw, "metadata")
    kind, namespace, name = str(raw.get("kind") or "Job"), meta.get("namespace"), meta.get("name")
    own = (f"{kind} {namespace}/{name}",)
    if kind != "RayJob":
        return own
    cluster = part(raw, "status").get("rayClusterName")
    submitter = (f"Job {namespace}/{name}",)
    return (*own, *submitter, f"RayCluster {namespace}/{cluster}") if cluster else (*own, *submitter)


def pod_label(raw: Object) -> str:
    """Return the label selector of the pods of a job."""
    name = part(raw, "metadata").get("name")
    match raw.get("kind"):
        case "JobSet":
            return f"jobset.sigs.k8s.io/jobset-name={name}"
        case "RayJob":
            return f"ray.io/cluster={part(raw, 'status').get('rayClusterName') or ''}"
        case _:
            return f"batch.kubernetes.io/job-name={name}"


def owner(raw: Object) -> str:
    """Return the job (its id) that made a Job and sets its `suspend`, or ""."""
    meta = part(raw, "metadata")
    for one in objects(meta.get("ownerReferences")):
        group = str(one.get("apiVersion") or "").partition("/")[0]
        if one.get("controller") and group in _KEEPERS:
            return named(str(one.get("kind")), meta.get("namespace"), one.get("name"))
    return ""


def unlike_a_gang(raw: Object, resource: str) -> LeftOut | None:
    """Return why a job is not stopped and started, or not planned as one gang; None where it is."""
    spec = part(raw, "spec")
    if raw.get("kind") == "LeaderWorkerSet":
        return LeftOut(LeftOutCause.NO_SUSPEND, value="a LeaderWorkerSet has no suspend, and its replicas are its own")
    if raw.get("kind") == "RayJob" and spec.get("clusterSelector"):
        return LeftOut(LeftOutCause.NO_SUSPEND, value="it runs in a RayCluster of somebody else (clusterSelector)")
    if raw.get("kind") == "RayJob" and not spec.get("shutdownAfterJobFinishes"):
        return LeftOut(LeftOutCause.NO_SUSPEND, value="KubeRay suspends none without shutdownAfterJobFinishes")
    notes = part(raw, "metadata", "annotations")
    inner = [part(one, "template", "metadata", "annotations") for one in objects(spec.get("replicatedJobs"))]
    if any(_EXCLUSIVE in one for one in (notes, *inner)):
        return LeftOut(LeftOutCause.SHAPE, value=f"{_EXCLUSIVE}: whole blocks of its own")
    if len(gpu_groups(raw, resource)) > 1 and any(_has_blocks(one) for one in gpu_groups(raw, resource)):
        return LeftOut(LeftOutCause.SHAPE, value="blocks for some of its pods")
    return None


def _has_blocks(group: PodGroup) -> bool:
    """Return whether a group of pods must stay within a block of nodes."""
    notes = part(group.template, "metadata", "annotations")
    return any(key.startswith("kueue.x-k8s.io/podset-") and key.endswith("required-topology") for key in notes)


def _parallel(spec: Object, status: Object) -> int:
    """Return the pods of a Job at once: its parallelism, and no more than still have to complete."""
    parallel = quantity(1 if spec.get("parallelism") is None else spec["parallelism"])
    if spec.get("completions") is None:
        return parallel
    return min(parallel, max(1, quantity(spec["completions"]) - quantity(status.get("succeeded") or 0)))


def _replicated(spec: Object) -> Iterator[PodGroup]:
    """Yield the pods of a JobSet: all of its Jobs count, those too that wait for others of it."""
    for one in objects(spec.get("replicatedJobs")):
        job = part(one, "template", "spec")
        replicas = quantity(1 if one.get("replicas") is None else one["replicas"])
        yield PodGroup(replicas * _parallel(job, {}), part(job, "template"))


def _ray(spec: Object) -> Iterator[PodGroup]:
    """Yield the pods of a RayJob: the one that submits it, the head, and the workers, at most so many as they may be.

    https://docs.ray.io/en/latest/cluster/kubernetes/user-guides/config.html
    """
    if spec.get("submitterPodTemplate"):
        yield PodGroup(1, part(spec, "submitterPodTemplate"))
    cluster = part(spec, "rayClusterSpec")
    yield PodGroup(1, part(cluster, "headGroupSpec", "template"))
    for one in objects(cluster.get("workerGroupSpecs")):
        most, least = one.get("maxReplicas"), quantity(one.get("minReplicas") or 0)
        if not cluster.get("enableInTreeAutoscaling"):
            wanted = max(least, quantity(one.get("replicas") or 0))
            most = wanted if most is None else min(wanted, quantity(most))
        elif most is None:
            name = f"rayClusterSpec: workerGroupSpecs {one.get('groupName')}"
            raise Rejected(f"{name}: maxReplicas: missing, must be there where Ray's autoscaler adds workers")
        hosts = quantity(1 if one.get("numOfHosts") is None else one["numOfHosts"])
        yield PodGroup(quantity(most) * hosts, part(one, "template"))


def _leader_and_workers(spec: Object) -> Iterator[PodGroup]:
    """Yield the pods of a LeaderWorkerSet: a leader and workers in each replica."""
    replicas = quantity(1 if spec.get("replicas") is None else spec["replicas"])
    group = part(spec, "leaderWorkerTemplate")
    size = quantity(1 if group.get("size") is None else group["size"])
    yield PodGroup(replicas, part(group, "leaderTemplate") or part(group, "workerTemplate"))
    yield PodGroup(replicas * max(0, size - 1), part(group, "workerTemplate"))
