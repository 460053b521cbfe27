"""Jobs run in the hall and on the node type of the plan, in a real Kubernetes that could put them anywhere."""

import time

import pytest

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from rigs.kubernetes import gang_controllers
from rigs.kubernetes.work import job, landed, needs, until_gpus, write
from rigs.kubernetes_gangs import job_set, ray_job
from rigs.two_halls import HALLS, plan_on, two_halls

pytestmark = needs("jobset", "ray-operator")
SITE = two_halls()


@pytest.fixture
def foreign(cluster):
    """Nodes with GPUs that the site does not have: another building's."""
    cluster.nodes(("other1", "other2"))
    yield
    cluster.kubectl("delete", "node", "other1", "other2")


def start(settings, team, where):
    plan = plan_on(
        SITE, KubernetesReader(SITE, settings).read().jobs, {f"{team}/{name}": on for name, on in where.items()}
    )
    write(settings, plan)


def test_jobs_run_on_their_planned_nodes_without_labels_of_their_halls(cluster, foreign, team, settings):
    """All nodes say hall1, wrong for half of them; and a stopped job goes on in the other hall."""
    cluster.apply(*(job(team, f"w{number}", pods=2) for number in range(3)))
    where = {"w0": ["gn01", "gn02"], "w1": ["gn11", "gn12"], "w2": ["gn07", "gn09"]}
    start(settings, team, where)
    until_gpus(cluster, 48)
    assert landed(cluster, team) == {name: set(nodes) for name, nodes in where.items()}
    cluster.kubectl("patch", "job", "w1", "-n", team, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    cluster.kubectl("annotate", "job", "w1", "-n", team, "powerhall.io/wrote-")
    until_gpus(cluster, 32)
    start(settings, team, {"w1": ["gn04", "gn05"]})
    until_gpus(cluster, 48)
    assert landed(cluster, team)["w1"] == {"gn04", "gn05"}


def test_jobs_stay_in_their_hall_by_its_labels(cluster, foreign, labels, team, settings):
    others = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["gn07"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [others]}]}
    mine = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    first = job(team, "w0", pods=4)
    first["spec"]["template"]["spec"]["affinity"] = mine
    cluster.apply(first, job(team, "w1", pods=2))
    start(settings, team, {"w0": ["gn08", "gn09", "gn10", "gn11"], "w1": ["gn01", "gn02"]})
    until_gpus(cluster, 48)
    found = landed(cluster, team)
    assert found["w0"] <= set(HALLS["hall2"]) - {"gn07"}
    assert found["w1"] <= set(HALLS["hall1"])
    (gone,) = found["w1"] - {max(found["w1"])}
    cluster.kubectl("cordon", gone)
    try:
        cluster.kubectl("delete", "pod", "-n", team, "-l", "job-name=w1", "--force", "--grace-period=0")
        until_gpus(cluster, 48)
        assert landed(cluster, team)["w1"] <= set(HALLS["hall1"]) - {gone}, "another node of its hall takes them"
    finally:
        cluster.kubectl("uncordon", gone)


def test_gangs_are_kept_too(cluster, foreign, labels, team, settings):
    with gang_controllers.start(cluster):
        cluster.apply(job_set(team, "set", work=(2, 1, 8)), ray_job(team, "ray", head=1, workers=2, gpus=4))
        where = {"jobset/set": ["gn11", "gn12"], "rayjob/ray": ["gn08", "gn09"]}
        start(settings, team, where)
        until_gpus(cluster, 25)
        time.sleep(1)
        assert set().union(*landed(cluster, team).values()) <= set(HALLS["hall2"])
        cluster.kubectl("delete", "jobset,rayjob,raycluster", "--all", "-n", team, "--wait=false")
        until_gpus(cluster, 0)
