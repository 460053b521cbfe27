"""JobSets, RayJobs and LeaderWorkerSets: what is planned, left out (and why), counted, written."""

import threading
import time

import msgspec
import pytest

from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from powerhall_optimizer.schedulers.skip_reasons import Skip
from rigs import kubernetes_api
from rigs.kubernetes_gangs import EXCLUSIVE, MANAGED, job_set, leader_worker_set, pods, ray_job
from rigs.plans import greedy_plan, small_site

NODES = tuple(f"gn{n:02d}" for n in range(1, 13))
SITE = small_site(NODES)
SLICE = "kueue.x-k8s.io/podset-required-topology"


@pytest.fixture(scope="module")
def rig():
    with kubernetes_api.start() as running:
        for name in NODES:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            running.put("nodes", {"metadata": {"name": name}, "status": ready})
        yield running


@pytest.fixture
def server(rig):
    rig.objects = {key: raw for key, raw in rig.objects.items() if key[0] == "nodes"}
    rig.forbidden.clear()
    return rig


@pytest.fixture
def settings(server):
    return KubernetesSettings(server=server.url, timeout_s=60.0)


def pod(name, on, gpus, kind, of, **labels):
    owner = {"apiVersion": "v1", "kind": kind, "name": of, "uid": of, "controller": True}
    meta = {"namespace": "a", "name": name, "labels": labels, "ownerReferences": [owner]}
    return {"metadata": meta, "spec": pods(gpus)["spec"] | {"nodeName": on}, "status": {"phase": "Running"}}


def autoscaled(most):
    raw = ray_job("a", "scaled", workers=1, gpus=4)
    cluster = raw["spec"]["rayClusterSpec"]
    cluster["enableInTreeAutoscaling"] = True
    cluster["workerGroupSpecs"][0]["maxReplicas"] = most
    if most is None:
        del cluster["workerGroupSpecs"][0]["maxReplicas"]
    return raw


@pytest.mark.parametrize(
    ("resource", "raw", "job", "gpus"),
    [
        ("jobsets", job_set("a", "train", lead=(1, 1, 0), work=(3, 2, 4)), "a/jobset/train", 24),
        ("jobsets", job_set("a", "two", first=(1, 2, 8), then=(2, 1, 8)), "a/jobset/two", 32),
        ("rayjobs", ray_job("a", "ray", head=1, workers=3, gpus=8), "a/rayjob/ray", 25),
        ("rayjobs", autoscaled(5), "a/rayjob/scaled", 20),
    ],
)
def test_all_pods_of_a_gang_are_planned_together(server, settings, resource, raw, job, gpus):
    server.put(resource, raw)
    queue = KubernetesReader(SITE, settings).read()
    assert queue.left_out == {}
    assert [(one.job_id, one.gpus, one.state, one.duration_s) for one in queue.jobs] == [(job, gpus, "waiting", 7200.0)]


def with_notes(raw, **notes):
    raw["metadata"]["annotations"] |= notes
    return raw


def in_blocks():
    raw = job_set("a", "x", big=(1, 2, 8), small=(1, 1, 4))
    raw["spec"]["replicatedJobs"][0]["template"]["spec"]["template"] = pods(8, **{SLICE: "rack"})
    return raw


@pytest.mark.parametrize(
    ("resource", "raw", "why"),
    [
        ("leaderworkersets", leader_worker_set("a", "x", 2, 2, 4), "a LeaderWorkerSet has no suspend"),
        ("rayjobs", ray_job("a", "x", shutdownAfterJobFinishes=False), "without shutdownAfterJobFinishes"),
        ("rayjobs", ray_job("a", "x", clusterSelector={"ray.io/cluster": "c"}), "RayCluster of somebody else"),
        ("rayjobs", autoscaled(None), "maxReplicas: missing"),
        ("jobsets", with_notes(job_set("a", "x", w=(1, 1, 8)), **{EXCLUSIVE: "rack"}), "whole blocks of its own"),
        ("jobsets", in_blocks(), "blocks for some of its pods"),
        ("jobsets", job_set("a", "x", w=(1, 1, 0)), "asks for no nvidia.com/gpu"),
        ("jobsets", with_notes(job_set("a", "x", w=(1, 1, 8)), **{"powerhall.io/duration": "0"}), "duration: '0'"),
    ],
)
def test_what_is_not_understood_is_left_out_and_the_rest_is_planned(server, settings, resource, raw, why):
    server.put(resource, raw)
    server.put("jobsets", job_set("a", "good", w=(1, 1, 8)))
    queue = KubernetesReader(SITE, settings).read()
    planned = [one.job_id for one in queue.jobs if one.hall or one.state == "waiting"]
    assert planned == ["a/jobset/good"]
    counted = {one.job_id: one.gpus for one in queue.jobs if one.job_id not in planned}
    assert counted == ({"Unbound:a/leaderworkerset/x": 16} if resource == "leaderworkersets" else {}), "it is admitted"
    (text,) = queue.left_out.values()
    assert why in text


def test_what_runs_is_counted_once_as_the_gang_that_made_it(server, settings):
    runs = job_set("a", "train", w=(2, 1, 8))
    runs["spec"]["suspend"] = False
    resumed = {"type": "Suspended", "status": "False", "lastTransitionTime": "2026-01-01T01:00:00Z"}
    server.put("jobsets", runs | {"status": {"conditions": [resumed]}})
    ray = ray_job("a", "ray", workers=1, gpus=4, suspend=False)
    server.put("rayjobs", ray | {"status": {"rayClusterName": "ray-x", "startTime": "2026-01-01T02:00:00Z"}})
    server.put("leaderworkersets", leader_worker_set("a", "serve", 1, 2, 2))
    of = {"jobset.sigs.k8s.io/jobset-name": "train"}
    serves = {"leaderworkerset.sigs.k8s.io/name": "serve"}
    inner = {"namespace": "a", "name": "train-w-0", "labels": MANAGED}
    made_by = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "name": "train",
        "uid": "t",
        "controller": True,
    }
    spec = {"suspend": False, "template": pods(8)}
    server.put("jobs", {"metadata": inner | {"ownerReferences": [made_by]}, "spec": spec})
    for one in (
        pod("p0", "gn01", 8, "Job", "train-w-0", **of),
        pod("p1", "gn02", 8, "Job", "train-w-1", **of),
        pod("r0", "gn03", 4, "RayCluster", "ray-x"),
        pod("s0", "gn04", 2, "StatefulSet", "serve", **serves),
        pod("s0-1", "gn05", 2, "StatefulSet", "serve-0", **serves),
        pod("o0", "gn06", 1, "Job", "other", **{"jobset.sigs.k8s.io/jobset-name": "unmanaged"}),
    ):
        server.put("pods", one)
    queue = KubernetesReader(SITE, settings).read()
    found = {one.job_id: (one.state, one.gpus, one.nodes) for one in queue.jobs}
    assert found == {
        "a/jobset/train": ("running", 16, "gn[01-02]"),
        "a/rayjob/ray": ("running", 4, "gn03"),
        "a/leaderworkerset/serve": ("running", 4, "gn[04-05]"),
        "JobSet:a/unmanaged": ("running", 1, "gn06"),
    }
    starts = {one.job_id: one.start_s for one in queue.jobs if one.start_s}
    assert starts["a/rayjob/ray"] - starts["a/jobset/train"] == 3600
    assert "is a part of a/jobset/train" in queue.left_out["a/train-w-0"]


def test_a_kind_that_may_not_be_read_is_named_and_stops_nothing(server, settings):
    server.put("jobsets", job_set("a", "train", w=(1, 1, 8)))
    server.forbidden.add(("list", "rayjobs"))
    queue = KubernetesReader(SITE, settings).read()
    assert [one.job_id for one in queue.jobs] == ["a/jobset/train"]
    assert "403" in queue.left_out["rayjobs.ray.io"]


def test_a_plan_starts_and_stops_gangs_and_says_why_on_them(server, settings):
    """60 kW are six nodes: a JobSet of four and a RayJob of two run, the third waits."""
    server.put("jobsets", job_set("a", "train", w=(4, 1, 8)))
    server.put("rayjobs", ray_job("a", "ray"))
    server.put("jobsets", job_set("a", "waits", w=(1, 1, 8)))

    def plan(**more):
        jobs = sorted(KubernetesReader(SITE, settings).read().jobs, key=lambda one: -one.gpus)
        return greedy_plan(SITE, jobs, start_s=int(time.time()), slot_s=60, budget_w=[60_000] * 20, **more)

    first = plan()
    done = KubernetesWriter(settings).apply(first)
    assert done.failed == []
    states = {
        name: server.get(kind, name, "a")["spec"]["suspend"]
        for kind, name in (("jobsets", "train"), ("rayjobs", "ray"), ("jobsets", "waits"))
    }
    assert states == {"train": False, "ray": False, "waits": True}
    events = {(e["involvedObject"]["kind"], e["involvedObject"]["name"]): e["reason"] for e in server.all("events")}
    assert events == {("JobSet", "train"): "Started", ("RayJob", "ray"): "Started", ("JobSet", "waits"): "Waiting"}
    again = KubernetesWriter(settings).apply(first)
    assert (again.commands, again.failed) == ([], [])
    server.put("pods", pod("p0", "gn01", 8, "Job", "train-w-0", **{"jobset.sigs.k8s.io/jobset-name": "train"}))
    swap = plan(stopped=["a/jobset/train"])
    hasty = msgspec.structs.replace(settings, grace_s=0.0)
    stopped = KubernetesWriter(hasty).apply(swap)
    assert stopped.failed == []
    assert server.get("jobsets", "train", "a")["spec"]["suspend"] is True
    skipped = {one.job_id: one.why.code for one in stopped.skipped}
    assert skipped["a/jobset/waits"] == Skip.NOT_GIVEN_BACK, "the pod of the stopped gang still draws power"
    assert server.get("jobsets", "waits", "a")["spec"]["suspend"] is True
    ends = threading.Timer(1.0, lambda: server.objects.pop(("pods", "a", "p0")))
    ends.start()
    assert KubernetesWriter(settings).apply(swap).failed == []
    ends.join()
    assert server.get("jobsets", "waits", "a")["spec"]["suspend"] is False
