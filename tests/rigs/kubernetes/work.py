"""Jobs, plans and samples for tests on the cluster of `rigs.kubernetes`."""

import os
import threading
import time
from typing import Any

import pytest

from powerhall.plan.plan import Plan
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes.cluster import Cluster, missing, until
from rigs.plans import greedy_plan, small_site

NODES = tuple(f"gn{n:02d}" for n in range(1, 13))
SITE = small_site(NODES)
WATTS = 1250.0
"""Of a GPU in the fast mode of `small_site`, its share of the node included."""


def needs(*programs: str, in_make: bool = True) -> list[pytest.MarkDecorator]:
    """Return the marks of a module on the cluster; with `in_make` it runs in `make test-kubernetes` alone."""
    lacks = missing(*programs)
    marks = [pytest.mark.rig, pytest.mark.slow, pytest.mark.skipif(bool(lacks), reason=lacks or "-")]
    away = in_make and "POWERHALL_KUBERNETES" not in os.environ
    return [*marks, pytest.mark.skipif(away, reason="make test-kubernetes runs it")]


def local_queue(team: str) -> dict[str, Any]:
    """Return the LocalQueue of a namespace."""
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "LocalQueue",
        "metadata": {"name": "hall1", "namespace": team},
        "spec": {"clusterQueue": "hall1"},
    }


def job(
    team: str,
    name: str,
    gpus: int = 8,
    pods: int = 1,
    notes: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return a managed Job."""
    container = {
        "name": "main",
        "image": "train",
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"nvidia.com/gpu": str(gpus)}},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": team,
            "labels": {"powerhall.io/managed": "true"} | (labels or {}),
            "annotations": {"powerhall.io/duration": "2 h", "powerhall.io/preemptible": "true"} | (notes or {}),
        },
        "spec": {
            "suspend": True,
            "parallelism": pods,
            "completions": pods,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        }
        | spec,
    }


def plan_of(settings: KubernetesSettings, budget_kw: int = 60, **kwargs: Any) -> Plan:
    """Return a plan of the queue as it is now."""
    queue = KubernetesReader(SITE, settings).read()
    return greedy_plan(
        SITE, queue.jobs, start_s=int(time.time()), slot_s=60, budget_w=[budget_kw * 1000] * 30, **kwargs
    )


def write(settings: KubernetesSettings, plan: Plan | None = None, **kwargs: Any) -> KubernetesWriter:
    """Write a plan, by default one of the queue as it is now, and return the writer: nothing of it is refused."""
    writer = KubernetesWriter(settings)
    assert writer.apply(plan or plan_of(settings, **kwargs)).failed == []
    return writer


def until_gpus(cluster: Cluster, gpus: int) -> None:
    """Wait until so many GPUs are held by pods."""
    until(f"{gpus} GPUs are held", lambda: running_gpus(cluster) == gpus)


def running_gpus(cluster: Cluster) -> int:
    """Return the GPUs of pods that hold a node now, counted from the pods alone."""
    held = 0
    for pod in cluster.get("pods", "-A")["items"]:
        if pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            sidecars = [one for one in pod["spec"].get("initContainers", ()) if one.get("restartPolicy") == "Always"]
            held += sum(_limit(one) for one in (*pod["spec"]["containers"], *sidecars))
    return held


def landed(cluster: Cluster, team: str) -> dict[str, set[str]]:
    """Return the nodes of the pods that run, by the Job or cluster that made them."""
    found: dict[str, set[str]] = {}
    for pod in cluster.get("pods", "-n", team)["items"]:
        if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
            found.setdefault(pod["metadata"]["ownerReferences"][0]["name"], set()).add(pod["spec"]["nodeName"])
    return found


def _limit(container: dict[str, Any]) -> int:
    return int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))


class Watch(threading.Thread):
    """Samples the GPUs of running pods five times a second."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster, self.ends = cluster, threading.Event()
        self.samples: list[tuple[float, int]] = []

    def run(self) -> None:
        """Sample until it ends."""
        while not self.ends.wait(0.2):
            self.samples.append((time.time(), running_gpus(self.cluster)))

    def __enter__(self) -> "Watch":
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.ends.set()
        self.join()
