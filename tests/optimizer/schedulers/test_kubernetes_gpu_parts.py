"""MIG instances and shared GPUs of Kubernetes planned as parts of a GPU, and the devices that pods claim counted."""

import pytest

from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from rigs.kubernetes_api import start

MODES = (Mode("full", "power_limit", 1250.0, 1.0),)
MIG, SHARED = "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"


def site(*, parts=7, mig=True):
    kinds = {
        "cut": NodeType("cut", "X", 2, 600.0, 2_700.0, 900.0, 0.0, MODES, parts, mig),
        "full": NodeType("full", "X", 8, 2_000.0, 10_400.0, 3_000.0, 0.0, MODES),
    }
    racks = (Rack("h/r/k1", "cut", ("c1", "c2")), Rack("h/r/k2", "full", ("f1",)))
    return Site("s", (Hall("h", (RackRow("h/r", racks),), (), Losses()),), kinds)


def node(name, **allocatable):
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable}
    return {"metadata": {"name": name}, "spec": {}, "status": status}


def job(name, resources, **spec):
    template = {"spec": {"containers": [{"name": "a", "image": "b", "resources": {"limits": resources}}]}}
    labels = {"powerhall.io/managed": "true"}
    meta = {"namespace": "a", "name": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": {"suspend": True, "parallelism": 1, "template": template} | spec, "status": {}}


def pod(name, on, claims=(), statuses=(), **limits):
    container = {"name": "a", "image": "b", "resources": {"limits": limits}}
    if claims:
        container["resources"]["claims"] = [{"name": claim["name"]} for claim in claims]
    spec = {"nodeName": on, "containers": [container], "resourceClaims": list(claims)}
    status = {"phase": "Running", "resourceClaimStatuses": list(statuses)}
    return {"metadata": {"namespace": "a", "name": name}, "spec": spec, "status": status}


def claim(name, *devices):
    results = [{"request": "r", "driver": d, "pool": "c1", "device": dev} for d, dev in devices]
    return {
        "metadata": {"namespace": "a", "name": name},
        "spec": {},
        "status": {"allocation": {"devices": {"results": results}}},
    }


def read(place, *objects):
    with start() as rig:
        for resource, raw in objects:
            rig.put(resource, raw)
        settings = KubernetesSettings(server=rig.url)
        return KubernetesReader(place, settings).read()


@pytest.mark.parametrize(
    ("resource", "parts", "mig", "count"), [(MIG, 7, True, "14"), (SHARED, 4, False, "8")], ids=["mig", "shared"]
)
def test_a_job_that_asks_for_one_part_is_planned_where_nodes_offer_it(resource, parts, mig, count):
    queue = read(
        site(parts=parts, mig=mig),
        ("nodes", node("c1", **{resource: count})), ("nodes", node("c2", **{resource: "3"})),
        ("nodes", node("f1", **{"nvidia.com/gpu": "8"})),
        ("jobs", job("one", {resource: "1"})), ("jobs", job("two", {resource: "2"})),
        ("jobs", job("pods", {resource: "1"}, parallelism=2)),
        ("jobs", job("mixed", {resource: "1", "nvidia.com/gpu": "1"})),
    )  # fmt: skip
    found = [(j.job_id, j.gpus, j.gpu_share, j.node_types, j.allowed_nodes) for j in queue.jobs]
    assert found == [("a/one", 1, f"1/{parts}", ("cut",), "c1")]
    assert set(queue.left_out) == {"a/two", "a/pods", "a/mixed"}


def test_a_part_that_runs_is_planned_on_its_node():
    running = job("one", {MIG: "1"}, suspend=False)
    running["status"] = {"startTime": "2026-01-01T01:00:00Z", "active": 1}
    on = pod("p", "c1", **{MIG: "1"})
    on["metadata"]["ownerReferences"] = [
        {"kind": "Job", "name": "one", "controller": True, "uid": "u", "apiVersion": "batch/v1"}
    ]
    queue = read(site(), ("nodes", node("c1", **{MIG: "14"})), ("jobs", running), ("pods", on))
    assert [(j.state, j.nodes, j.node_type, j.mode, j.gpu_share) for j in queue.jobs] == [
        ("running", "c1", "cut", "full", "1/7")
    ]


def test_claimed_devices_count_as_whole_gpus_and_unknown_claims_as_the_node():
    named = {"name": "g", "resourceClaimName": "mine"}
    made = {"name": "g", "resourceClaimTemplateName": "t"}
    gpus = (
        ("gpu.nvidia.com", "gpu-0"),
        ("gpu.nvidia.com", "gpu-1-mig-1g10gb-0"),
        ("compute-domain.nvidia.com", "channel-0"),
    )
    queue = read(
        site(),
        ("nodes", node("f1")),
        ("resourceclaims", claim("mine", *gpus)),
        ("resourceclaims", claim("t-x", ("gpu.nvidia.com", "gpu-5"))),
        ("resourceclaims", claim("cards", ("compute-domain.nvidia.com", "channel-0"))),
        ("pods", pod("two", "f1", [named])),
        ("pods", pod("one", "f1", [made], [{"name": "g", "resourceClaimName": "t-x"}])),
        ("pods", pod("none", "f1", [{"name": "g", "resourceClaimName": "cards"}])),
        ("pods", pod("lost", "f1", [{"name": "g", "resourceClaimName": "gone"}])),
    )
    assert {j.job_id: j.gpus for j in queue.jobs} == {"Pod:a/two": 2, "Pod:a/one": 1, "Pod:a/lost": 8}


def test_claims_that_may_not_be_read_count_as_the_node():
    with start() as rig:
        rig.put("resourceclaims", claim("mine", ("gpu.nvidia.com", "gpu-0")))
        rig.put("pods", pod("two", "f1", [{"name": "g", "resourceClaimName": "mine"}]))
        rig.forbidden.add(("list", "resourceclaims"))
        queue = KubernetesReader(site(), KubernetesSettings(server=rig.url)).read()
    assert [j.gpus for j in queue.jobs] == [8]
