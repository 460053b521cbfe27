"""Whose a job is in Kubernetes: tenants that forge what Powerhall writes, users that take a job over."""

import time

import msgspec
import pytest

from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes_jobs import SITE, job, notes, plan_of, pod, submit, writes

pytestmark = pytest.mark.rig
PREEMPTIBLE = {"powerhall.io/preemptible": "true"}
RUNS = {"spec": {"suspend": False}, "status": {"startTime": "2026-01-01T00:00:00Z", "active": 1, "ready": 1}}
FORGED = {"powerhall.io/mode": "eco", "powerhall.io/wrote": "suspend=false;queue="}


def read(settings):
    return KubernetesReader(SITE, settings).read()


def by_id(settings):
    return {one.job_id: one for one in read(settings).jobs}


def running(server, name, node, annotations=None):
    submit(server, name, annotations=PREEMPTIBLE | (annotations or {}))
    server.change("jobs", name, "team-a", RUNS)
    labels = {"batch.kubernetes.io/job-name": name}
    pod(server, f"{name}-0", node, gpus=8, owner=("Job", name), team="team-a", labels=labels)


def in_mode(plan, mode, watts):
    changed = [msgspec.structs.replace(one, mode=mode, gpu_power_w=watts) for one in plan.assignments]
    return msgspec.structs.replace(plan, assignments=tuple(changed))


def test_a_mode_counts_where_a_round_wrote_it_and_nowhere_else(server, settings):
    """A tenant may write everything on its job: only the lease, which it cannot write, makes a lower mode count."""
    running(server, "told", "gn01")
    running(server, "forged", "gn02", FORGED)
    assert {name: one.mode for name, one in by_id(settings).items()} == {"team-a/told": "fast", "team-a/forged": "fast"}
    plan = plan_of(settings)
    mine = msgspec.structs.replace(plan, assignments=tuple(a for a in plan.assignments if a.job_id == "team-a/told"))
    assert KubernetesWriter(settings).apply(in_mode(mine, "eco", 1000.0)).failed == []
    assert {name: one.mode for name, one in by_id(settings).items()} == {"team-a/told": "eco", "team-a/forged": "fast"}
    server.change("jobs", "told", "team-a", {"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}})
    assert by_id(settings)["team-a/told"].mode == "fast", "made anew with the same annotations"


def test_a_mode_that_is_raised_counts_as_such_though_the_round_dies(server, settings):
    running(server, "a", "gn01")
    writer = KubernetesWriter(settings)
    assert writer.apply(in_mode(plan_of(settings), "eco", 1000.0)).failed == []
    assert by_id(settings)["team-a/a"].mode == "eco"
    raised = in_mode(plan_of(settings), "fast", 1250.0)
    server.forbidden |= {("patch", "jobs"), ("patch", "pods")}
    assert writer.apply(raised).failed
    server.change("jobs", "a", "team-a", {"metadata": {"annotations": {"powerhall.io/mode": "eco"}}})
    assert by_id(settings)["team-a/a"].mode == "fast"


def test_a_started_job_is_known_in_its_mode_and_the_same_plan_keeps_it(server, settings):
    submit(server, "a")
    plan, writer = in_mode(plan_of(settings), "eco", 1000.0), KubernetesWriter(settings)
    for _ in range(2):
        assert writer.apply(plan).failed == []
        pod(server, "a-0", "gn01", gpus=8, owner=("Job", "a"), team="team-a")
        assert by_id(settings)["team-a/a"].mode == "eco"
    server.forbidden.add(("get", "leases"))
    assert by_id(settings)["team-a/a"].mode == "fast", "a lease that may not be read is no proof"


def test_a_job_that_its_user_suspends_takes_no_power_of_later_plans(server, settings):
    submit(server, "a")
    assert KubernetesWriter(settings).apply(plan_of(settings)).failed == []
    server.change("jobs", "a", "team-a", {"spec": {"suspend": True}})
    submit(server, "b")
    queue = read(settings)
    assert [one.job_id for one in queue.jobs] == ["team-a/b"]
    assert "left alone until powerhall.io/wrote is removed" in queue.left_out["team-a/a"]
    server.change("jobs", "a", "team-a", {"metadata": {"annotations": {"powerhall.io/wrote": None}}})
    assert set(by_id(settings)) == {"team-a/a", "team-a/b"}


def test_a_running_job_that_is_somebody_elses_is_counted_and_no_plan_counts_on_stopping_it(server, settings):
    running(server, "mine", "gn01")
    running(server, "theirs", "gn02", {"powerhall.io/wrote": "suspend=true;queue="})
    found = by_id(settings)
    assert {name: (one.gpus, one.preemptible) for name, one in found.items()} == {
        "team-a/mine": (8, True),
        "team-a/theirs": (8, False),
    }


def test_a_job_that_its_user_holds_keeps_nobody_waiting_once_the_optimizer_is_dead(server):
    settings = KubernetesSettings(server=server.url, timeout_s=10.0, round_s=1.0, lease_s=1)
    submit(server, "large", pods=4)
    assert KubernetesWriter(settings).apply(plan_of(settings, budget_kw=40)).failed == []
    server.change("jobs", "large", "team-a", {"spec": {"suspend": True}})
    submit(server, "small")
    later = KubernetesWriter(settings, clock=lambda: time.time() + 60.0)
    done = later.withdraw_pins()
    assert done.failed == []
    assert (job(server, "large")["spec"]["suspend"], job(server, "small")["spec"]["suspend"]) == (True, False)
    assert ["left alone" in one.reason for one in done.skipped] == [True]


def workload(server, name, of, *, active, finished=False):
    server.put(
        "workloads",
        {
            "metadata": {"name": name, "namespace": "team-a", "ownerReferences": [{"kind": "Job", "name": of}]},
            "spec": {"active": active},
            "status": {"conditions": [{"type": "Finished", "status": str(finished)}]},
        },
    )


def test_kueue_may_run_a_job_only_after_it_is_confined_and_is_held_before_it_is_written(server, settings):
    settings = msgspec.structs.replace(settings, queues={"hall1": "hall1"})
    server.put("localqueues", {"metadata": {"name": "hall1", "namespace": "team-a"}})
    submit(server, "a", labels={"kueue.x-k8s.io/queue-name": "hall1"}, annotations=PREEMPTIBLE)
    workload(server, "old", "a", active=False, finished=True)
    workload(server, "job-a", "a", active=False)
    assert KubernetesWriter(settings).apply(plan_of(settings)).failed == []
    assert [what for verb, what in writes(server) if verb == "patch"] == ["jobs", "workloads"]
    assert {one["metadata"]["name"]: one["spec"]["active"] for one in server.all("workloads")} == {
        "old": False,
        "job-a": True,
    }
    server.change("jobs", "a", "team-a", RUNS)
    server.requests.clear()
    assert KubernetesWriter(settings).apply(plan_of(settings, stopped=["team-a/a"])).failed == []
    assert [what for verb, what in writes(server) if verb == "patch"] == ["workloads", "jobs"]


def test_a_job_that_cannot_be_confined_is_not_given_to_kueue(server, settings):
    settings = msgspec.structs.replace(settings, queues={"hall1": "hall1"})
    submit(server, "a", labels={"kueue.x-k8s.io/queue-name": "hall1"})
    workload(server, "job-a", "a", active=False)
    plan = plan_of(settings)
    server.forbidden.add(("patch", "jobs"))
    assert len(KubernetesWriter(settings).apply(plan).failed) == 1
    assert server.get("workloads", "job-a", "team-a")["spec"]["active"] is False


def test_a_pod_that_ends_while_its_level_is_written_is_no_failure(server, settings):
    running(server, "a", "gn01")
    plan = in_mode(plan_of(settings), "eco", 1000.0)

    def ends(name):
        if name == "a-0":
            server.objects.pop(("pods", "team-a", "a-0"), None)

    server.before_patch = ends
    assert KubernetesWriter(settings).apply(plan).failed == []
    assert notes(server, "a")["mode"] == "eco"


@pytest.mark.parametrize("is_annotation", [True, False])
def test_conditions_without_end_leave_their_own_job_out(server, settings, is_annotation):
    named = [{"key": "row", "operator": "In", "values": [f"r{number}" for number in range(50)]}]
    terms = [{"matchExpressions": named} for _ in range(1_000)]
    submit(server, "good")
    submit(server, "evil")
    server.change("nodes", "gn01", "", {"metadata": {"labels": {"row": "r1"}}})
    if is_annotation:
        own = msgspec.json.encode([{"required": terms}]).decode()
        server.change("jobs", "evil", "team-a", {"metadata": {"annotations": {"powerhall.io/own-nodes": own}}})
    else:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        spec = {"affinity": {"nodeAffinity": required}}
        server.change("jobs", "evil", "team-a", {"spec": {"template": {"spec": spec}}})
    queue = read(settings)
    assert [one.job_id for one in queue.jobs] == ["team-a/good"]
    assert "conditions: must be at most" in queue.left_out["team-a/evil"]


def test_a_list_of_refused_nodes_without_end_refuses_none(server, settings):
    submit(server, "a", annotations={"powerhall.io/refused": "gn[01-12],x[000000-900000]"})
    (one,) = read(settings).jobs
    assert one.allowed_nodes is None
