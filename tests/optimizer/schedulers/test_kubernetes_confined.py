"""What a plan releases into Kubernetes runs only where it was counted, and where its user lets it."""

from random import Random

import msgspec
import pytest

from powerhall.hostlist import expand
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes_gangs import job_set, ray_job
from rigs.kubernetes_jobs import NODES, job, notes, submit
from rigs.two_halls import HALLS, TYPES, lands_on, plan_on, two_halls

pytestmark = pytest.mark.rig
SITE = two_halls()
HALL_OF = {node: hall for hall, nodes in HALLS.items() for node in nodes}
HALL, TYPE = "powerhall.io/hall", "powerhall.io/node-type"


def label(server, wrong=(), lacking=(), foreign=()):
    """Give the nodes their labels of hall and type: some a wrong one, some none, and nodes that the site lacks too."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    known = {}
    for node in (*NODES, *foreign):
        hall = HALL_OF.get(node, "hall1")
        hall = {"hall1": "hall2", "hall2": "hall1"}[hall] if node in wrong else hall
        known[node] = {"row": node[-1]} | ({} if node in lacking else {HALL: hall, TYPE: TYPES[hall]})
        server.put("nodes", {"metadata": {"name": node, "labels": known[node]}, "status": ready})
    return known


def asks(server, name, **spec):
    """Put what a job asks of its nodes into its template."""
    server.change("jobs", name, "team-a", {"spec": {"template": {"spec": spec}}})


def affinity(*terms):
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def read(settings, site=SITE):
    return KubernetesReader(site, settings).read()


def template(server, name):
    return job(server, name)["spec"]["template"]["spec"]


@pytest.mark.parametrize("labels", ["none", "all", "one wrong", "one lacks"])
def test_a_job_that_is_released_runs_in_its_planned_hall_alone(server, settings, labels):
    where = {"wrong": ("gn09",) if labels == "one wrong" else (), "lacking": NODES if labels == "none" else ()}
    known = label(server, **where | ({"lacking": ("gn02",)} if labels == "one lacks" else {}), foreign=("other1",))
    for number in range(4):
        submit(server, f"w{number}", pods=2)
    on = {"team-a/w0": ["gn01", "gn02"], "team-a/w1": ["gn03", "gn04"], "team-a/w2": ["gn07", "gn08"]}
    plan = plan_on(SITE, read(settings).jobs, on)
    writer = KubernetesWriter(settings)
    assert writer.apply(plan).failed == []
    for name, nodes in on.items():
        lands = lands_on(template(server, name.partition("/")[2]), known)
        assert set(nodes) <= lands <= set(HALLS[HALL_OF[nodes[0]]]), name
    assert job(server, "w3")["spec"]["suspend"] is True
    server.requests.clear()
    assert writer.apply(plan).commands == []


ASKED = [
    ({"nodeSelector": {"row": "7"}}, {"gn07"}),
    ({"nodeName": "gn03"}, {"gn03"}),
    ({"affinity": affinity(expression("row", "In", "1", "8"))}, {"gn01", "gn11", "gn08"}),
    ({"affinity": affinity(expression("row", "Gt", "7"), expression("row", "Lt", "1"))}, {"gn08", "gn09", "gn10"}),
    ({"affinity": affinity(expression(HALL, "NotIn", "hall1"))}, set(HALLS["hall2"])),
    ({"affinity": affinity({}, expression(HALL, "Exists") | {"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["gn05"]}]})}, {"gn05"}),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "may"), ASKED)
def test_what_a_user_asks_of_nodes_is_a_condition_of_the_plan(server, settings, spec, may):
    label(server)
    submit(server, "a")
    asks(server, "a", **spec)
    (found,) = read(settings).jobs
    assert set(expand(found.allowed_nodes)) == may
    assert set(found.halls) == {HALL_OF[node] for node in may}
    assert set(found.node_types) == {TYPES[HALL_OF[node]] for node in may}


@pytest.mark.parametrize(
    "spec", [{"nodeSelector": {"gpu": "none"}}, {"nodeName": "other1"}, {"affinity": affinity({})}]
)
def test_a_job_that_no_node_of_the_site_may_have_is_left_out_with_the_reason(server, settings, spec):
    label(server, foreign=("other1",))
    submit(server, "a")
    asks(server, "a", **spec)
    queue = read(settings)
    assert (queue.jobs, queue.left_out) == ((), {"team-a/a": "no node of the site may take it"})


def random_job(server, random, number):
    """Submit a job that asks for some of the nodes in one of the ways that there are."""
    name = f"job{number}"
    submit(server, name, pods=random.choice([1, 2]))
    rows = random.sample("0123456789", random.randint(4, 9))
    way = random.choice(["nothing", "affinity", "selector", "both"])
    spec = (
        {"affinity": affinity(*(expression("row", "In", row) for row in rows))} if way in ("affinity", "both") else {}
    )
    spec |= {"nodeSelector": {HALL: random.choice(list(HALLS))}} if way in ("selector", "both") else {}
    asks(server, name, **spec)
    return f"team-a/{name}", spec


def test_random_jobs_run_where_both_plan_and_user_let_them(server, settings):
    """Labels are right, wrong or missing at random; a checker of its own says where each template lands."""
    random = Random(13)
    for _ in range(3):
        server.objects.clear()
        wrong, lacking = random.sample(NODES, random.randint(0, 2)), random.sample(NODES, random.randint(0, 2))
        known = label(server, wrong=wrong, lacking=lacking, foreign=("other1", "other2"))
        own = dict(random_job(server, random, number) for number in range(8))
        queue, on = read(settings), {}
        for one in queue.jobs:
            user = lands_on(own[one.job_id], known) & set(NODES)
            assert set(expand(one.allowed_nodes or "gn[01-12]")) == user
            hall = random.choice([HALL_OF[node] for node in sorted(user)])
            inside = sorted(user & set(HALLS[hall]))
            if len(inside) >= one.gpus // 8:
                on[one.job_id] = random.sample(inside, one.gpus // 8)
        assert on
        assert KubernetesWriter(settings).apply(plan_on(SITE, queue.jobs, on)).failed == []
        for name, nodes in on.items():
            lands = lands_on(template(server, name.partition("/")[2]), known)
            assert set(nodes) <= lands <= set(HALLS[HALL_OF[nodes[0]]]) & lands_on(own[name], known)


def test_limits_of_racks_are_kept_by_the_planned_nodes(server, settings):
    site = two_halls(rack_limit_w=20_000.0)
    known = label(server)
    submit(server, "a", pods=2)
    submit(server, "b", pods=2)
    on = {"team-a/a": ["gn03", "gn04"], "team-a/b": ["gn01", "gn02"]}
    assert KubernetesWriter(settings).apply(plan_on(site, read(settings, site).jobs, on)).failed == []
    assert lands_on(template(server, "a"), known) == {"gn03", "gn04"}, "it lies in two racks: each has one of its nodes"
    assert lands_on(template(server, "b"), known) == {"gn01", "gn02"}


def test_pods_that_do_not_fill_whole_nodes_have_the_hall(server, settings):
    known = label(server, lacking=NODES)
    submit(server, "a", gpus=5, pods=3)  # 15 GPUs are two nodes, but three pods of five need three
    on = {"team-a/a": ["gn07", "gn08"]}
    assert KubernetesWriter(settings).apply(plan_on(SITE, read(settings).jobs, on)).failed == []
    assert lands_on(template(server, "a"), known) == set(HALLS["hall2"])


def test_a_job_goes_on_elsewhere_with_what_its_user_asked_for(server, settings):
    """It ran, was stopped, and is planned on other nodes; then the optimizer is dead, and it is as it was submitted."""
    known = label(server, lacking=("gn01",))
    submit(server, "a")
    mine = affinity(expression("row", "In", "1", "2", "7"))
    asks(server, "a", affinity=mine)
    for nodes in (["gn01"], ["gn07"], ["gn02"]):
        queue = read(settings)
        assert queue.jobs[0].allowed_nodes == "gn[01-02],gn07,gn[11-12]"
        assert KubernetesWriter(settings).apply(plan_on(SITE, queue.jobs, {"team-a/a": nodes})).failed == []
        lands = lands_on(template(server, "a"), known)
        assert set(nodes) <= lands <= set(HALLS[HALL_OF[nodes[0]]])
        stopped = {"spec": {"suspend": True}, "status": {"startTime": "2026-01-01T00:00:00Z"}}
        server.change("jobs", "a", "team-a", stopped)
        server.change("jobs", "a", "team-a", {"metadata": {"annotations": {"powerhall.io/wrote": None}}})
    later = KubernetesWriter(settings, clock=lambda: read(settings).taken_s + 3600.0)
    assert later.withdraw_pins().failed == []
    assert job(server, "a")["spec"]["suspend"] is False
    assert template(server, "a")["affinity"] == mine


def test_a_job_that_asks_for_other_nodes_since_the_plan_is_not_started(server, settings):
    label(server)
    submit(server, "a")
    plan = plan_on(SITE, read(settings).jobs, {"team-a/a": ["gn07"]})
    asks(server, "a", nodeSelector={HALL: "hall1"})
    (skipped,) = KubernetesWriter(settings).apply(plan).skipped
    assert "may not start on gn07 any more" in skipped.reason
    assert job(server, "a")["spec"]["suspend"] is True


def test_a_job_set_is_kept_by_labels_or_not_started(server, settings):
    """Its webhook lets only the node selector change."""
    label(server)
    server.put("jobsets", job_set("a", "x", lead=(1, 1, 0), work=(2, 1, 8)))
    queue = read(settings)
    assert queue.jobs[0].allowed_nodes is None
    assert KubernetesWriter(settings).apply(plan_on(SITE, queue.jobs, {"a/jobset/x": ["gn08", "gn09"]})).failed == []
    spec = server.get("jobsets", "x", "a")["spec"]
    lead, work = (one["template"]["spec"]["template"]["spec"] for one in spec["replicatedJobs"])
    assert spec["suspend"] is False
    assert work["nodeSelector"] == {HALL: "hall2"}
    assert "nodeSelector" not in lead, "it has no GPU"
    assert "affinity" not in work
    label(server, wrong=("gn12",))
    server.put("jobsets", job_set("a", "y", work=(1, 1, 8)))
    queue = read(settings)
    assert {one.allowed_nodes for one in queue.jobs if one.job_id == "a/jobset/y"} == {"gn[07-11]"}
    label(server, lacking=NODES)
    queue = read(settings)
    assert "label the nodes powerhall.io/hall=HALL" in queue.left_out["a/jobset/y"]


def test_a_job_set_is_not_believed_what_it_says_of_itself(server, settings):
    label(server, lacking=NODES)
    lies = [{"required": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gn01"]}]}]}]
    raw = job_set("a", "x", {"powerhall.io/own-nodes": msgspec.json.encode(lies).decode()}, work=(1, 1, 8))
    server.put("jobsets", raw)
    assert "label the nodes" in read(settings).left_out["a/jobset/x"]


def test_a_ray_job_is_kept_by_its_templates(server, settings):
    known = label(server, lacking=NODES)
    server.put("rayjobs", ray_job("a", "ray", head=0, workers=2, gpus=8))
    plan = plan_on(SITE, read(settings).jobs, {"a/rayjob/ray": ["gn08", "gn09"]})
    assert KubernetesWriter(settings).apply(plan).failed == []
    spec = server.get("rayjobs", "ray", "a")["spec"]
    assert spec["suspend"] is False
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert lands_on(group["template"]["spec"], known) == {"gn08", "gn09"}
    assert group["replicas"] == 2
    assert "affinity" not in spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def test_pods_on_no_node_yet_count_where_they_may_come_and_not_where_a_tenant_says(server, settings):
    label(server, lacking=NODES)
    submit(server, "a", pods=2, suspend=False, annotations={"powerhall.io/hall": "hall2"})
    found = read(settings).jobs
    assert [(one.hall, one.gpus, HALL_OF[expand(one.nodes)[0]]) for one in found] == [
        (None, 16, "hall1"),
        (None, 16, "hall2"),
    ], "it may come to either hall"
    submit(server, "b")
    plan = plan_on(SITE, read(settings).jobs, {"team-a/b": ["gn05"]})
    assert KubernetesWriter(settings).apply(plan).failed == []
    found = {one.job_id: one for one in read(settings).jobs}["team-a/b"]
    assert (found.state, found.hall, found.node_type, found.nodes) == ("running", "hall1", "hgx", "gn05")
    assert notes(server, "b")["own-nodes"] == "[{}]"


def test_a_job_whose_planned_nodes_take_none_of_its_pods_is_planned_elsewhere(server, settings):
    """Its pods wait for a processor, say, that the planned node has not; what is bound is never stopped for that."""
    label(server, lacking=NODES)
    submit(server, "a")
    assert KubernetesWriter(settings).apply(plan_on(SITE, read(settings).jobs, {"team-a/a": ["gn05"]})).failed == []
    server.change("jobs", "a", "team-a", {"status": {"startTime": "2026-01-01T00:00:00Z", "active": 1, "ready": 0}})
    waits = {"name": "a-1", "namespace": "team-a", "labels": {"batch.kubernetes.io/job-name": "a"}}
    server.put("pods", {"metadata": waits, "spec": {"containers": []}, "status": {"phase": "Pending"}})
    running = runs_on(settings, "gn05")
    server.change("pods", "a-1", "team-a", {"spec": {"nodeName": "gn05"}})
    KubernetesWriter(settings).apply(running)
    assert job(server, "a")["spec"]["suspend"] is False
    server.change("pods", "a-1", "team-a", {"spec": {"nodeName": None}})
    assert KubernetesWriter(settings).apply(running).failed == []
    assert job(server, "a")["spec"]["suspend"] is True
    (found,) = read(settings).jobs
    assert (found.state, "gn05" in expand(found.allowed_nodes)) == ("waiting", False)
    assert any(event["reason"] == "Unplaced" for event in server.all("events"))


def runs_on(settings, node):
    """Return a plan in which the one job runs on a node."""
    jobs = read(settings).jobs
    plan = plan_on(SITE, jobs, {jobs[0].job_id: [node]})
    return msgspec.structs.replace(plan, assignments=(msgspec.structs.replace(plan.assignments[0], running=True),))
