"""JobSets, RayJobs and LeaderWorkerSets as their users write them."""

from typing import Any

MANAGED = {"powerhall.io/managed": "true"}
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"


def pods(gpus: int, **notes: str) -> dict[str, Any]:
    """Return a pod template whose container asks for GPUs."""
    asks = {"nvidia.com/gpu": str(gpus)} if gpus else {"cpu": "1"}
    container = {"name": "main", "image": "train", "resources": {"limits": asks, "requests": asks}}
    return {"metadata": {"annotations": notes}, "spec": {"containers": [container], "restartPolicy": "Never"}}


def _managed(api: str, kind: str, team: str, name: str, notes: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": name, "namespace": team, "labels": dict(MANAGED)}
    noted = {"powerhall.io/duration": "2 h", "powerhall.io/preemptible": "true"} | notes
    return {"apiVersion": api, "kind": kind, "metadata": meta | {"annotations": noted}, "spec": spec}


def job_set(team: str, name: str, notes: dict[str, str] | None = None, **parts: tuple[int, int, int]) -> dict[str, Any]:
    """Return a suspended JobSet of parts: (replicas, pods at once of each, GPUs of a pod)."""
    jobs = [
        {
            "name": part,
            "replicas": replicas,
            "template": {"spec": {"parallelism": many, "completions": many, "template": pods(gpus)}},
        }
        for part, (replicas, many, gpus) in parts.items()
    ]
    spec = {"suspend": True, "replicatedJobs": jobs}
    return _managed("jobset.x-k8s.io/v1alpha2", "JobSet", team, name, notes or {}, spec)


def ray_job(team: str, name: str, *, head: int = 0, workers: int = 2, gpus: int = 8, **spec: Any) -> Any:
    """Return a suspended RayJob with a head and workers, which is given back when it ends."""
    group = {"groupName": "w", "replicas": workers, "minReplicas": 0, "maxReplicas": workers, "rayStartParams": {}}
    cluster = {
        "rayVersion": "2.9.0",
        "headGroupSpec": {"rayStartParams": {}, "template": pods(head)},
        "workerGroupSpecs": [group | {"template": pods(gpus)}],
    }
    own = {"suspend": True, "shutdownAfterJobFinishes": True, "entrypoint": "train", "rayClusterSpec": cluster}
    return _managed("ray.io/v1", "RayJob", team, name, {}, own | spec)


def leader_worker_set(team: str, name: str, replicas: int, size: int, gpus: int) -> dict[str, Any]:
    """Return a LeaderWorkerSet of groups of a leader and workers, each with GPUs."""
    template = pods(gpus)
    template["spec"]["restartPolicy"] = "Always"
    group = {"size": size, "workerTemplate": template}
    spec = {"replicas": replicas, "startupPolicy": "LeaderCreated", "leaderWorkerTemplate": group}
    return _managed("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", team, name, {}, spec)
