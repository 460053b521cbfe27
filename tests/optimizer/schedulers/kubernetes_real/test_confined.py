"""Jobs run in the hall and on the node type of the plan, in a real Kubernetes that could put them anywhere."""

import os
import time

import pytest

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes import cluster as rig
from rigs.kubernetes import gang_controllers
from rigs.kubernetes.work import NODES, job, running_gpus
from rigs.kubernetes_gangs import job_set, ray_job
from rigs.two_halls import HALLS, plan_on, two_halls

pytestmark = [
    pytest.mark.rig,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(rig.missing("jobset", "ray-operator")), reason=rig.missing("jobset", "ray-operator") or "-"
    ),
    pytest.mark.skipif("POWERHALL_KUBERNETES" not in os.environ, reason="make test-kubernetes runs it"),
]
SITE = two_halls()


def landed(cluster, team):
    """Return the nodes of the pods that run, by the Job or cluster that made them."""
    found = {}
    for pod in cluster.get("pods", "-n", team)["items"]:
        if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
            found.setdefault(pod["metadata"]["ownerReferences"][0]["name"], set()).add(pod["spec"]["nodeName"])
    return found


@pytest.fixture
def foreign(cluster):
    """Nodes with GPUs that the site does not have: another building's."""
    cluster.nodes(("other1", "other2"))
    yield
    cluster.kubectl("delete", "node", "other1", "other2")


@pytest.fixture
def labels(cluster):
    """Labels of hall and type on all nodes of the site."""
    for hall, nodes in HALLS.items():
        kind = SITE.hall(hall).rows[0].racks[0].node_type
        cluster.kubectl(
            "label", "node", *nodes, f"powerhall.io/hall={hall}", f"powerhall.io/node-type={kind}", "--overwrite"
        )
    yield
    cluster.kubectl("label", "node", *NODES, "powerhall.io/hall=hall1", "powerhall.io/node-type-", "--overwrite")


def start(settings, team, where):
    plan = plan_on(
        SITE, KubernetesReader(SITE, settings).read().jobs, {f"{team}/{name}": on for name, on in where.items()}
    )
    assert KubernetesWriter(settings).apply(plan).failed == []


def test_jobs_run_on_their_planned_nodes_without_labels_of_their_halls(cluster, foreign, team, settings):
    """All nodes say hall1, wrong for half of them; and a stopped job goes on in the other hall."""
    cluster.apply(*(job(team, f"w{number}", pods=2) for number in range(3)))
    where = {"w0": ["gn01", "gn02"], "w1": ["gn11", "gn12"], "w2": ["gn07", "gn09"]}
    start(settings, team, where)
    rig.until("they run", lambda: running_gpus(cluster) == 48)
    assert landed(cluster, team) == {name: set(nodes) for name, nodes in where.items()}
    cluster.kubectl("patch", "job", "w1", "-n", team, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    cluster.kubectl("annotate", "job", "w1", "-n", team, "powerhall.io/wrote-")
    rig.until("its pods are gone", lambda: running_gpus(cluster) == 32)
    start(settings, team, {"w1": ["gn04", "gn05"]})
    rig.until("it goes on", lambda: running_gpus(cluster) == 48)
    assert landed(cluster, team)["w1"] == {"gn04", "gn05"}


def test_jobs_stay_in_their_hall_by_its_labels(cluster, foreign, labels, team, settings):
    others = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["gn07"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [others]}]}
    mine = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    first = job(team, "w0", pods=4)
    first["spec"]["template"]["spec"]["affinity"] = mine
    cluster.apply(first, job(team, "w1", pods=2))
    start(settings, team, {"w0": ["gn08", "gn09", "gn10", "gn11"], "w1": ["gn01", "gn02"]})
    rig.until("they run", lambda: running_gpus(cluster) == 48)
    found = landed(cluster, team)
    assert found["w0"] <= set(HALLS["hall2"]) - {"gn07"}
    assert found["w1"] <= set(HALLS["hall1"])
    (gone,) = found["w1"] - {max(found["w1"])}
    cluster.kubectl("cordon", gone)
    try:
        cluster.kubectl("delete", "pod", "-n", team, "-l", "job-name=w1", "--force", "--grace-period=0")
        rig.until("its pods are made anew", lambda: running_gpus(cluster) == 48)
        assert landed(cluster, team)["w1"] <= set(HALLS["hall1"]) - {gone}, "another node of its hall takes them"
    finally:
        cluster.kubectl("uncordon", gone)


def test_gangs_are_kept_too(cluster, foreign, labels, team, settings):
    with gang_controllers.start(cluster):
        cluster.apply(job_set(team, "set", work=(2, 1, 8)), ray_job(team, "ray", head=1, workers=2, gpus=4))
        where = {"jobset/set": ["gn11", "gn12"], "rayjob/ray": ["gn08", "gn09"]}
        start(settings, team, where)
        rig.until("they run", lambda: running_gpus(cluster) == 25)
        time.sleep(1)
        assert set().union(*landed(cluster, team).values()) <= set(HALLS["hall2"])
        cluster.kubectl("delete", "jobset,rayjob,raycluster", "--all", "-n", team, "--wait=false")
        rig.until("pods are gone", lambda: running_gpus(cluster) == 0)
