"""Jobs, pods and nodes of every shape, counted as a real Kubernetes runs them."""

import msgspec
import pytest

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from rigs.kubernetes import cluster as rig
from rigs.kubernetes.work import SITE, job, needs, running_gpus, until_gpus, write

pytestmark = needs("kueue")


def read(settings):
    return KubernetesReader(SITE, settings).read()


def counted(settings):
    """Return the GPUs that the snapshot has on nodes."""
    return sum(one.gpus for one in read(settings).jobs if one.state == "running")


def test_an_elastic_indexed_job_with_a_sidecar_is_counted_as_it_grows_and_shrinks(cluster, team, settings):
    failures = {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]}
    more = {"podFailurePolicy": failures, "backoffLimitPerIndex": 1, "podReplacementPolicy": "Failed"}
    raw = job(team, "elastic", gpus=3, pods=4, completionMode="Indexed", **more)
    asks = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}
    sidecar = {"name": "side", "image": "train", "restartPolicy": "Always", "resources": asks}
    raw["spec"]["template"]["spec"]["initContainers"] = [sidecar]
    cluster.apply(raw)
    write(settings)
    until_gpus(cluster, 16)
    assert counted(settings) == 16
    for pods in (2, 6):
        size = f'{{"spec": {{"parallelism": {pods}, "completions": {pods}}}}}'
        cluster.kubectl("patch", "job", "elastic", "-n", team, "--type=merge", "-p", size)
        until_gpus(cluster, 4 * pods)
        assert counted(settings) == 4 * pods
    write(settings, stopped=[f"{team}/elastic"])
    until_gpus(cluster, 0)
    (one,) = read(settings).jobs
    assert (one.state, one.gpus) == ("waiting", 24)


def test_pods_that_end_slowly_are_counted_beside_those_in_their_place(cluster, team, settings):
    raw = job(team, "slow", pods=2)
    raw["spec"]["template"]["metadata"] = {"finalizers": ["powerhall.test/slow"]}
    cluster.apply(raw)
    write(settings)
    until_gpus(cluster, 16)
    names = [pod["metadata"]["name"] for pod in cluster.get("pods", "-n", team)["items"]]
    cluster.kubectl("delete", "pod", names[0], "-n", team, "--wait=false")
    until_gpus(cluster, 24)
    assert counted(settings) == 24
    write(msgspec.structs.replace(settings, grace_s=1.0), stopped=[f"{team}/slow"])
    rig.until("it is suspended", lambda: cluster.get("job", "slow", "-n", team)["spec"].get("suspend"))
    assert counted(settings) == running_gpus(cluster) == 24, "they draw power until they have ended"
    for pod in cluster.get("pods", "-n", team)["items"]:
        name = pod["metadata"]["name"]
        cluster.kubectl("patch", "pod", name, "-n", team, "-p", '{"metadata":{"finalizers":null}}', "--type=merge")
    until_gpus(cluster, 0)
    assert counted(settings) == 0


def test_nodes_that_take_nothing_new_are_closed_and_what_runs_there_counts(cluster, team, settings):
    cluster.apply(job(team, "runs"), job(team, "waits"))
    write(settings, budget_kw=10)
    until_gpus(cluster, 8)
    (pod,) = cluster.get("pods", "-n", team)["items"]
    busy = pod["spec"]["nodeName"]
    others = [node for node in ("gn01", "gn02", "gn03", "gn04", "gn05", "gn06") if node != busy][:4]
    taints = ("team=b:NoSchedule", "repair=yes:NoExecute", "slow=yes:PreferNoSchedule", "nvidia.com/gpu=yes:NoSchedule")
    try:
        cluster.kubectl("cordon", busy)
        for node, taint in zip(others, taints, strict=True):
            cluster.kubectl("taint", "node", node, taint)
        queue = read(settings)
        assert set(queue.down_nodes) == {busy, *others[:2]}
        assert {one.job_id: one.nodes for one in queue.jobs if one.state == "running"} == {f"{team}/runs": busy}
    finally:
        cluster.kubectl("uncordon", busy)
        for node, taint in zip(others, taints, strict=True):
            cluster.kubectl("taint", "node", node, f"{taint}-")


def devices(node):
    spec = {"driver": "gpu.nvidia.com", "nodeName": node, "devices": [{"name": f"gpu-{n}"} for n in range(8)]}
    pool = {"pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}
    return {"apiVersion": DRA, "kind": "ResourceSlice", "metadata": {"name": f"{node}-gpus"}, "spec": spec | pool}


DRA = "resource.k8s.io/v1"


def test_devices_that_pods_claim_are_counted(cluster, team, settings):
    if DRA not in cluster.kubectl("api-versions").split():
        pytest.skip("this Kubernetes does not serve resource.k8s.io/v1")
    expression = "device.driver == 'gpu.nvidia.com'"
    asked = {"name": "gpus", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 3}}
    cluster.apply(
        {"apiVersion": DRA, "kind": "DeviceClass", "metadata": {"name": "gpu.nvidia.com"}}
        | {"spec": {"selectors": [{"cel": {"expression": expression}}]}},
        *(devices(node) for node in ("gn01", "gn02")),
        {"apiVersion": DRA, "kind": "ResourceClaimTemplate", "metadata": {"name": "three", "namespace": team}}
        | {"spec": {"spec": {"devices": {"requests": [asked]}}}},
    )
    raw = job(team, "claims", pods=4, suspend=False)
    spec = raw["spec"]["template"]["spec"]
    spec["containers"][0]["resources"] = {"claims": [{"name": "g"}]}
    spec["resourceClaims"] = [{"name": "g", "resourceClaimTemplateName": "three"}]
    cluster.apply(raw)
    try:
        bound = lambda: all(pod["spec"].get("nodeName") for pod in cluster.get("pods", "-n", team)["items"])  # noqa: E731
        rig.until("its four pods are on nodes", lambda: len(cluster.get("pods", "-n", team)["items"]) == 4 and bound())
        queue = read(settings)
        assert sum(one.gpus for one in queue.jobs if one.state == "running") == 12
        assert "claims devices" in queue.left_out[f"{team}/claims"]
    finally:
        cluster.kubectl("delete", "job", "claims", "-n", team, "--cascade=foreground", "--wait=true")
        cluster.kubectl("delete", "resourceslice", "--all")
        cluster.kubectl("delete", "deviceclass", "gpu.nvidia.com")
