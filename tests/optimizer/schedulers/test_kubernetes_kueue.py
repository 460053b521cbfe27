"""Kueue's queues and quota, and the rights that a round uses, against a small fake API server."""

import msgspec
import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity as quantity

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes_jobs import job, plan_of, submit
from rigs.two_halls import plan_on, two_halls

pytestmark = pytest.mark.rig


def quota(server):
    spec = server.get("clusterqueues", "hall1")["spec"]
    return {r["name"]: str(r["nominalQuota"]) for r in spec["resourceGroups"][0]["flavors"][0]["resources"]}


def test_kueue_gets_queue_labels_and_a_quota_in_watts_that_follows_the_budget(server, settings, root):
    documents = list(yaml.safe_load_all((root / "deploy/kubernetes/kueue.yaml").read_text()))
    server.put("clusterqueues", next(d for d in documents if d["kind"] == "ClusterQueue"))
    kueue = {"queues": {"hall1": "hall1"}, "cluster_queue": "hall1", "watts_per_gpu": 1250.0}
    settings = msgspec.structs.replace(settings, **kueue)
    submit(server, "a", pods=2)
    writer = KubernetesWriter(settings)
    plan = plan_of(settings)
    assert [c.error for c in writer.apply(plan).failed] == ["namespace team-a has no LocalQueue hall1"]
    server.put("localqueues", {"metadata": {"name": "hall1", "namespace": "team-a"}})
    assert writer.apply(plan).failed == []
    assert job(server, "a")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "hall1"
    assert job(server, "a")["spec"]["suspend"] is True  # Kueue admits it
    server.change("jobs", "a", "team-a", {"spec": {"suspend": False}})
    assert writer.apply(plan).commands == []
    low = plan_of(settings, budget_kw=30)
    assert [c.text for c in writer.apply(low).commands if "quota" in c.text] == [
        "quota of clusterqueue hall1: 60000 W to 30000 W"
    ]
    assert quota(server) == {"nvidia.com/gpu": "96", "powerhall.io/watts": "30000"}
    raised = writer.apply(plan_of(settings, budget_kw=50))
    assert raised.commands[-1].text == "quota of clusterqueue hall1: 30000 W to 50000 W"
    assert writer.apply(plan_of(settings, budget_kw=50)).commands == []


@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize(("effective_w", "is_told"), [("90k", True), ("60000", False)])
def test_a_quota_that_counts_in_place_of_ours_is_an_alarm(server, settings, root, is_list, effective_w, is_told):
    documents = list(yaml.safe_load_all((root / "deploy/kubernetes/kueue.yaml").read_text()))
    queue = next(d for d in documents if d["kind"] == "ClusterQueue")
    entry = {"name": "powerhall.io/watts", "nominalQuota": effective_w}
    groups = [{"coveredResources": [entry["name"]], "flavors": [{"name": "any", "resources": [entry]}]}]
    server.put(
        "clusterqueues", queue | {"status": {"effectiveQuotas": groups if is_list else {"resourceGroups": groups}}}
    )
    settings = msgspec.structs.replace(settings, cluster_queue="hall1", watts_per_gpu=1250.0)
    submit(server, "a")
    failed = KubernetesWriter(settings).apply(plan_of(settings)).failed
    assert [("Kueue counts 90000 W by status.effectiveQuotas" in one.error) for one in failed] == [True] * is_told


def shared_queue(quotas, **limits):
    """Return a ClusterQueue of a cohort, with a flavour for each quota of watts."""
    names = ("nvidia.com/gpu", "powerhall.io/watts")
    flavours = [
        {"name": f"hall{number}", "resources": [{"name": name, "nominalQuota": watts} | limits for name in names]}
        for number, watts in enumerate(quotas, 1)
    ]
    groups = [{"coveredResources": list(names), "flavors": flavours}]
    return {"metadata": {"name": "hall1"}, "spec": {"cohortName": "all", "resourceGroups": groups}}


@pytest.mark.parametrize("quotas", [("60k",), (40_000, 80_000), (0, 0, 0), (60_000, 0), (7, 3, 1)])
@pytest.mark.parametrize("limits", [{}, {"borrowingLimit": "100k"}, {"lendingLimit": "40000"}])
def test_all_flavours_together_have_the_budget_and_borrow_nothing(server, settings, quotas, limits):
    server.put("clusterqueues", shared_queue(quotas, **limits))
    settings = msgspec.structs.replace(settings, cluster_queue="hall1", watts_per_gpu=1250.0)
    writer = KubernetesWriter(settings)
    for budget_kw in (60, 30, 45):
        assert writer.apply(plan_of(settings, budget_kw=budget_kw)).failed == []
        flavours = server.get("clusterqueues", "hall1")["spec"]["resourceGroups"][0]["flavors"]
        gpus, watts = zip(*(one["resources"] for one in flavours), strict=True)
        assert sum(int(quantity(one["nominalQuota"])) for one in watts) == budget_kw * 1000
        assert {str(one["borrowingLimit"]) for one in watts} == {"0"}
        assert all(quantity(one.get("lendingLimit", 0)) <= quantity(one["nominalQuota"]) for one in watts)
        assert [(one["nominalQuota"], one.get("borrowingLimit")) for one in gpus] == [
            (quota, limits.get("borrowingLimit")) for quota in quotas
        ], "what is not ours stays"
        assert writer.apply(plan_of(settings, budget_kw=budget_kw)).commands == []


def test_flavours_named_as_halls_get_what_the_plan_has_there(server, settings):
    server.put("clusterqueues", shared_queue((30_000, 30_000)))
    settings = msgspec.structs.replace(settings, cluster_queue="hall1", watts_per_gpu=1250.0)
    site, writer = two_halls(), KubernetesWriter(settings)
    for number in range(3):
        submit(server, f"job{number}", pods=2)
    first = {"team-a/job0": ["gn01", "gn02"], "team-a/job1": ["gn07", "gn08"]}
    moved = {"team-a/job1": ["gn07", "gn08"], "team-a/job2": ["gn09", "gn10"]}
    quotas = []
    for on in (first, moved):
        plan = plan_on(site, KubernetesReader(site, settings).read().jobs, on)
        full = tuple(msgspec.structs.replace(zone, planned_w=zone.budget_w) for zone in plan.zones)
        done = writer.apply(msgspec.structs.replace(plan, zones=full))
        assert done.failed == []
        flavours = server.get("clusterqueues", "hall1")["spec"]["resourceGroups"][0]["flavors"]
        quotas.append([int(one["resources"][1]["nominalQuota"]) for one in flavours])
        assert writer.apply(msgspec.structs.replace(plan, zones=full)).commands == []
    assert quotas == [[20_000, 20_000], [0, 40_000]]
    said = [one.text for one in done.commands if "quota" in one.text]
    assert said == [
        "quota of clusterqueue hall1: 40000 W to 20000 W",
        "quota of clusterqueue hall1: 20000 W to 40000 W",
    ], "what one hall gives up is taken before another one gets it"


EFFECTIVE = [
    [{"flavor": "a", "resources": [{"name": "powerhall.io/watts", "nominalQuota": "40k"}]},
     {"flavor": "b", "resources": [{"name": "powerhall.io/watts", "nominalQuota": "30k"}]}],
    {"flavors": {"a": {"powerhall.io/watts": "70k"}}},
    {"powerhall.io/watts": {"quota": "70k"}},
    [{"resource": "powerhall.io/watts", "value": 70_000}],
    [{"resource": "powerhall.io/watts", "of": "unheard"}],
]  # fmt: skip


@pytest.mark.parametrize("effective", EFFECTIVE)
def test_an_effective_quota_of_any_form_is_an_alarm(server, settings, effective):
    server.put("clusterqueues", shared_queue((60_000,)) | {"status": {"effectiveQuotas": effective}})
    settings = msgspec.structs.replace(settings, cluster_queue="hall1", watts_per_gpu=1250.0)
    failed = KubernetesWriter(settings).apply(plan_of(settings)).failed
    assert ["status.effectiveQuotas" in one.error for one in failed] == [True]


def test_the_role_grants_what_a_round_uses(server, settings, root):
    documents = list(yaml.safe_load_all((root / "deploy/kubernetes/rbac.yaml").read_text()))
    granted = {
        (verb, resource)
        for role in documents
        for rule in role.get("rules", [])
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    test_kueue_gets_queue_labels_and_a_quota_in_watts_that_follows_the_budget(server, settings, root)
    submit(server, "b")
    watching = msgspec.structs.replace(settings, settle_s=1.0)
    assert KubernetesWriter(watching).apply(plan_of(watching)).failed == []
    assert set(server.requests) <= granted
