"""Jobs, pods and plans for tests against the small fake API server (`rigs.kubernetes_api`)."""

import time

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from rigs.plans import greedy_plan, small_site

NODES = tuple(f"gn{n:02d}" for n in range(1, 13))
SITE = small_site(NODES)


def submit(server, name, gpus=8, pods=1, annotations=None, labels=None, suspend=True, duration="10 min"):
    notes = {"powerhall.io/duration": duration} | (annotations or {})
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    return server.put(
        "jobs",
        {
            "metadata": {
                "name": name,
                "namespace": "team-a",
                "labels": {"powerhall.io/managed": "true"} | (labels or {}),
                "annotations": notes,
            },
            "spec": {"suspend": suspend, "parallelism": pods, "template": {"spec": {"containers": [container]}}},
        },
    )


def job(server, name):
    return server.get("jobs", name, "team-a")


def notes(server, name):
    found = job(server, name)["metadata"]["annotations"]
    return {key.removeprefix("powerhall.io/"): value for key, value in found.items()}


def plan_of(settings, budget_kw=60, slots=30, site=SITE, **kwargs):
    queue = KubernetesReader(site, settings).read()
    budget = [budget_kw * 1000] * slots if isinstance(budget_kw, int) else [kw * 1000 for kw in budget_kw]
    return greedy_plan(site, queue.jobs, start_s=int(time.time()), slot_s=60, budget_w=budget, **kwargs)


def writes(server):
    return [
        (verb, what) for verb, what in server.requests if verb in ("create", "patch", "update") and what != "leases"
    ]


def pod(server, name, node, gpus=4, owner=("Deployment", "serve"), team="team-b", labels=None, **status):
    server.put(
        "pods",
        {
            "metadata": {
                "name": name,
                "namespace": team,
                "labels": labels or {},
                "ownerReferences": [
                    {"apiVersion": "v1", "uid": "u", "kind": owner[0], "name": owner[1], "controller": True}
                ],
            },
            "spec": {
                "nodeName": node,
                "containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}],
            },
            "status": {"phase": "Running"} | status,
        },
    )
