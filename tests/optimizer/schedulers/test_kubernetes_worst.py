"""What of Kubernetes is not known is counted at its worst: pods without readable GPUs, pods that are not bound yet."""

import copy
import json

import pytest

from powerhall.hostlist import expand
from powerhall.plan.plan import Assignment, Snapshot
from powerhall.timeseries import parse_time
from powerhall_optimizer.inputs.left_out_jobs import fitting_jobs
from powerhall_optimizer.inputs.observed_nodes import observed_nodes
from powerhall_optimizer.physics.plan_loads import power_now_w
from powerhall_optimizer.schedulers.base import WriteReport
from powerhall_optimizer.schedulers.kubernetes.decisions import decide
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.kueue import Quota
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.written_modes import known_modes, mode_key
from rigs.kubernetes_gangs import job_set, leader_worker_set, ray_job
from rigs.kubernetes_jobs import NODES, SITE

NOW_S = 1_795_880_000
NODE_W, GPU_W = 10_200.0, 1_275.0
"""Most that a node, and a GPU of it, draws; in its fastest mode a GPU draws 1250 W."""
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


class Cluster:
    """What the reader asks of the API."""

    def __init__(self, *, jobs=(), gangs=(), pods=(), claims=(), off_site=(), modes=None):
        self._jobs, self._gangs, self._pods, self._claims = list(jobs), list(gangs), list(pods), list(claims)
        self._modes = json.dumps(modes or {})
        self._nodes = [{"metadata": {"name": name}, "status": READY} for name in (*NODES, *off_site)]

    def jobs(self):
        return self._jobs, "1"

    def gangs(self):
        return self._gangs, []

    def pods(self):
        return self._pods

    def nodes(self):
        return self._nodes

    def resource_claims(self):
        return self._claims

    def lease(self):
        return {"metadata": {"annotations": {"powerhall.io/modes": self._modes}}}


def container(gpus, resource="nvidia.com/gpu", **more):
    return {"name": "c", "resources": {"limits": {resource: str(gpus)}}} | more


def pod(name, on, gpus=8, owner=None, spec=None, **status):
    owners = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
    return {
        "metadata": {"name": name, "namespace": "a", "ownerReferences": owners},
        "spec": {"nodeName": on, "containers": [container(gpus)]} | (spec or {}),
        "status": {"phase": "Running" if on else "Pending"} | status,
    }


def claim(name, devices):
    results = [{"driver": "gpu.nvidia.com", "pool": "gn01", "device": f"gpu-{n}"} for n in range(devices)]
    status = {"allocation": {"devices": {"results": results}}}
    return {"metadata": {"name": name, "namespace": "a"}, "status": status}


def read(now_s=NOW_S, **cluster):
    return KubernetesReader(SITE, KubernetesSettings(), Cluster(**cluster), lambda: now_s).read()


def watts(queue):
    """Return the power that a plan of this queue begins with, in W."""
    fit = fitting_jobs(SITE, queue.jobs, "queue")
    snapshot = Snapshot(NOW_S, NOW_S, 300, 12, SITE, fit.jobs, left_out=fit.left_out)
    return power_now_w(observed_nodes(snapshot, queue.down_nodes, queue.off_nodes))


@pytest.mark.parametrize("gpus", ["9223372036854775807", "2M", "-8", "abc", "NaN", ""])
def test_a_pod_whose_gpus_cannot_be_read_holds_its_node(gpus):
    assert watts(read(pods=[pod("p", "gn01", gpus)])) == NODE_W


def test_a_claim_that_no_container_names_is_counted():
    spec = {"containers": [{"name": "c"}], "resourceClaims": [{"name": "g", "resourceClaimName": "mine"}]}
    assert watts(read(pods=[pod("p", "gn01", spec=spec)], claims=[claim("mine", 3)])) == 3 * GPU_W
    assert watts(read(pods=[pod("p", "gn01", spec=spec)])) == NODE_W
    unread = claim("mine", 3)
    unread["status"]["allocation"]["devices"] = None
    assert watts(read(pods=[pod("p", "gn01", spec=spec)], claims=[unread])) == NODE_W


@pytest.mark.parametrize("resource", ["deviceclass.resource.kubernetes.io/gpu.nvidia.com", "nvidia.com/gpu"])
def test_devices_behind_an_extended_resource_are_counted_once(resource):
    spec = {"containers": [container(4, resource)]}
    behind = {"extendedResourceClaimStatus": {"resourceClaimName": "made"}}
    assert watts(read(pods=[pod("p", "gn01", spec=spec)])) == 4 * GPU_W
    assert watts(read(pods=[pod("p", "gn01", spec=spec, **behind)], claims=[claim("made", 4)])) == 4 * GPU_W
    assert watts(read(pods=[pod("p", "gn01", spec=spec, **behind)])) == NODE_W


def test_devices_behind_a_resource_of_any_name_are_counted():
    spec = {"containers": [container(2, "example.com/card")]}
    behind = {"extendedResourceClaimStatus": {"resourceClaimName": "made"}}
    assert watts(read(pods=[pod("p", "gn01", spec=spec, **behind)], claims=[claim("made", 2)])) == 2 * GPU_W


@pytest.mark.parametrize("resource", ["amd.com/gpu", "gpu.intel.com/xe", "habana.ai/gaudi"])
def test_gpus_of_another_vendor_are_counted(resource):
    assert watts(read(pods=[pod("p", "gn01", spec={"containers": [container(4, resource)]})])) == 4 * GPU_W


@pytest.mark.parametrize(
    ("init", "main", "gpus"),
    [
        ([(4, True), (4, False)], 1, 8),
        ([(4, False), (4, True)], 1, 5),
        ([(1, True), (2, True), (5, False)], 4, 8),
        ([(1, True), (2, True)], 4, 7),
        ([(6, False), (3, False)], 1, 6),
    ],
)
def test_init_containers_run_beside_the_sidecars_before_them(init, main, gpus):
    before = [container(count, **({"restartPolicy": "Always"} if stays else {})) for count, stays in init]
    spec = {"initContainers": before, "containers": [container(main)]}
    assert watts(read(pods=[pod("p", "gn01", spec=spec)])) == gpus * GPU_W


def job(name="x", pods=1, gpus=8, notes=None, **status):
    annotations = {f"powerhall.io/{key}": value for key, value in ({"duration": "1 h"} | (notes or {})).items()}
    template = {"spec": {"containers": [container(gpus)]}}
    return {
        "kind": "Job",
        "metadata": {"name": name, "namespace": "a", "annotations": annotations},
        "spec": {"suspend": False, "parallelism": pods, "template": template},
        "status": {"startTime": "2026-11-28T07:30:00Z"} | status,
    }


def running(raw, **status):
    raw["spec"]["suspend"] = False
    return raw | {"status": status}


OF_X, OF_RAY = ("Job", "x"), ("RayCluster", "r-c")


@pytest.mark.parametrize(
    ("cluster", "most_w"),
    [
        ({"jobs": [job(pods=4)], "pods": [pod("p", "gn01", owner=OF_X), pod("q", None, owner=OF_X)]}, 40_000),
        ({"jobs": [job(pods=4, gpus=2)], "pods": [pod("p", "gn01", 2, OF_X)]}, 10_000),
        (
            {"jobs": [job(pods=2)], "pods": [pod("p", "gn01", 8, OF_X), pod("q", "gn02", 8, OF_X, phase="Failed")]},
            20_000,
        ),
        ({"jobs": [job(pods=1)], "pods": [pod("p", "gn01", 8, OF_X), pod("q", "gn02", 8, OF_X)]}, 20_000),
        (
            {"gangs": [running(job_set("a", "x", w=(4, 1, 8)))], "pods": [pod("p", "gn01", owner=("JobSet", "x"))]},
            40_000,
        ),
        (
            {
                "gangs": [running(ray_job("a", "r", workers=3), rayClusterName="r-c")],
                "pods": [pod("p", "gn01", owner=OF_RAY)],
            },
            30_000,
        ),
    ],
    ids=["job", "one node", "replaced", "more than asked for", "jobset", "rayjob"],
)
def test_pods_of_an_admitted_job_count_before_they_are_bound(cluster, most_w):
    queue = read(**cluster)
    assert watts(queue) == most_w
    (planned,) = queue.jobs
    assert "gn01" in expand(planned.nodes), "what is known stays where it is"


def test_pods_that_are_not_bound_are_on_nodes_that_are_free():
    others = [pod(f"o{n}", node, owner=("ReplicaSet", "s")) for n, node in enumerate(NODES[1:10])]
    queue = read(jobs=[job(pods=4)], pods=[*others, pod("p", "gn01", owner=OF_X)])
    found = {one.job_id: one for one in queue.jobs}
    assert found["a/x"].nodes == "gn01,gn[11-12]"
    assert found["Unbound:a/x"].gpus == 8
    assert watts(queue) == 3 * 10_000 + 9 * NODE_W


def test_pods_on_nodes_of_another_site_are_no_pods_to_come():
    queue = read(jobs=[job(pods=2)], pods=[pod("p", "gn01", owner=OF_X), pod("q", "far1", owner=OF_X)])
    assert watts(queue) == 10_000


def claiming():
    raw = job(pods=2)
    raw["spec"]["template"]["spec"] = {"containers": [{"name": "c"}], "resourceClaims": [{"name": "g"}]}
    return raw


@pytest.mark.parametrize(
    ("cluster", "nodes"),
    [
        ({"jobs": [job(pods=4, notes={"duration": "0"})]}, 4),
        ({"jobs": [job(pods=4, notes={"duration": "0"})], "pods": [pod("p", "gn01", owner=OF_X)]}, 4),
        ({"jobs": [job(pods=10**15)]}, 12),
        ({"jobs": [job(pods="abc")]}, 1),
        ({"jobs": [claiming()]}, 2),
        ({"gangs": [leader_worker_set("a", "x", 2, 2, 8)]}, 4),
        ({"jobs": [job(gpus=0, pods=4)]}, 0),
        ({"jobs": [job(pods=4, notes={"duration": "0"}, conditions=[{"type": "Failed", "status": "True"}])]}, 0),
    ],
)
def test_an_admitted_job_that_is_left_out_counts_before_its_pods_are_bound(cluster, nodes):
    assert watts(read(**cluster)) == nodes * NODE_W


STARTED_S = parse_time("2026-11-28T07:30:00Z")


@pytest.mark.parametrize(
    "notes", [{"duration": "1e-9 s"}, {"duration": "1 h", "preemptible": "true", "done": "99999999"}]
)
@pytest.mark.parametrize("rounds", [0, 1, 10, 100])
def test_a_job_that_outlives_what_its_tenant_says_is_taken_to_run_on(notes, rounds):
    raw = job(notes=notes)
    raw["metadata"]["creationTimestamp"] = "2026-11-28T07:30:00Z"
    late_s = 300.0 * rounds
    said_s = 3600.0 if "done" in notes else 0.0
    (found,) = read(STARTED_S + late_s, jobs=[raw], pods=[pod("p", "gn01", owner=OF_X)]).jobs
    assert found.duration_s >= max(300.0, late_s - said_s - 1)
    assert found.duration_s <= max(3600.0, late_s)


def test_a_waiting_job_has_done_no_more_than_it_is_old():
    raw = job(notes={"preemptible": "true", "done": "99999999"})
    raw["spec"]["suspend"] = True
    raw["metadata"]["creationTimestamp"] = "2026-11-28T07:30:00Z"
    (found,) = read(STARTED_S + 600, jobs=[raw]).jobs
    assert found.duration_s == 3000.0


def test_half_of_many_completions_is_not_late():
    raw = job(pods=2, succeeded=50)
    raw["spec"]["completions"] = 100
    (found,) = read(
        STARTED_S + 1800, jobs=[raw], pods=[pod("p", "gn01", owner=OF_X), pod("q", "gn02", owner=OF_X)]
    ).jobs
    assert found.duration_s == 1800.0


def test_a_deadline_that_is_none_leaves_its_job_out_and_counted():
    raw = job()
    del raw["metadata"]["annotations"]["powerhall.io/duration"]
    raw["spec"]["activeDeadlineSeconds"] = -5
    queue = read(jobs=[raw], pods=[pod("p", "gn01", owner=OF_X)])
    assert "activeDeadlineSeconds: '-5'" in queue.left_out["a/x"]
    assert watts(queue) == NODE_W


class OneQueue:
    """A ClusterQueue with one quota of watts, and an effective one where given."""

    def __init__(self, nominal, effective=None):
        self.raw = {"metadata": {"resourceVersion": "1"}, "spec": {"resourceGroups": self._groups(nominal)}}
        if effective is not None:
            self.raw["status"] = {"effectiveQuotas": self._groups(effective)}

    def _groups(self, quota):
        entry = {"name": "powerhall.io/watts"} | ({} if quota is ... else {"nominalQuota": quota})
        return [{"flavors": [{"name": "any", "resources": [entry]}]}]

    def cluster_queue(self, _name, patch=None):
        self.raw["spec"] |= patch["spec"] if patch else {}
        return copy.deepcopy(self.raw)

    @property
    def quota(self):
        return self.raw["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0].get("nominalQuota")


@pytest.mark.parametrize("nominal", ["9223372036854775807", "-1", "abc", "", "1e30", None, ...])
def test_a_quota_that_is_none_is_overwritten_with_one_alarm(nominal):
    api, report = OneQueue(nominal), WriteReport("kubernetes", "plan", dry_run=False)
    quota = Quota(api, KubernetesSettings(cluster_queue="c"))
    quota.set(43_200, report)
    assert api.quota == "43200"
    (alarm,) = report.failed
    assert "is no quota of watts" in alarm.error
    again = WriteReport("kubernetes", "plan", dry_run=False)
    quota.set(43_200, again)
    assert again.commands == []


@pytest.mark.parametrize("effective", ["abc", "9223372036854775807", ...])
def test_an_effective_quota_that_is_none_is_an_alarm(effective):
    report = WriteReport("kubernetes", "plan", dry_run=False)
    Quota(OneQueue("43200", effective), KubernetesSettings(cluster_queue="c")).check_effective(43_200, report)
    assert ["status.effectiveQuotas" in one.error for one in report.failed] == [True]


@pytest.mark.parametrize(
    ("notes", "in_lease", "most_w"),
    [
        ({"mode": "eco"}, "", 10_000),
        ({"mode": "eco", "wrote": "suspend=false;queue="}, "", 10_000),
        ({"mode": "eco", "wrote": "suspend=false;queue="}, "eco", 8_000),
        ({"mode": "eco"}, "eco", 8_000),
        ({"mode": "eco"}, "fast", 10_000),
        ({}, "eco", 10_000),
        ({"mode": "unheard of"}, "unheard of", 10_000),
    ],
)
def test_a_mode_that_the_lease_does_not_know_is_not_believed(notes, in_lease, most_w):
    modes = {in_lease: mode_key(job())} if in_lease else {}
    assert watts(read(jobs=[job(notes=notes)], pods=[pod("p", "gn01", owner=OF_X)], modes=modes)) == most_w
    assert watts(read(jobs=[job(notes=notes | {"hall": "hall1"})], modes=modes)) == most_w


@pytest.mark.parametrize("text", ["", "[]", "{", '{"eco": 3}', "null"])
def test_modes_that_cannot_be_read_are_not_believed(text):
    assert known_modes({"metadata": {"annotations": {"powerhall.io/modes": text}}}) == {}


def test_a_job_of_others_whose_level_is_written_is_not_written_again():
    raw = job()
    level = Assignment("a/x", "hall1", "hgx", "eco", 8, 1000.0, NOW_S, NOW_S + 600, (), running=True)
    made = decide(raw, level, KubernetesSettings(), NOW_S)
    raw["metadata"]["annotations"] |= made.patch["metadata"]["annotations"]
    assert decide(raw, level, KubernetesSettings(), NOW_S) is None
