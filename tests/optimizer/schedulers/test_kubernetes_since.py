"""What others take between a plan's snapshot and its writes: nothing of the plan starts on that power."""

import msgspec
import pytest

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from powerhall_optimizer.schedulers.skip_reasons import Skip
from rigs.kubernetes_jobs import NODES, SITE, job, plan_of, pod, submit

pytestmark = pytest.mark.rig


def running(server):
    return sorted(name for name in server.names("jobs") if not job(server, name)["spec"]["suspend"])


@pytest.mark.parametrize(("grown", "starts"), [(0, 5), (1, 5), (2, 0)])
def test_pods_that_came_since_the_snapshot_hold_back_what_has_no_power_left(server, settings, grown, starts):
    """60 kW: one pod of 8 GPUs runs, five of six jobs are planned, and one ends; then a Deployment grows."""
    pod(server, "serve-0", "gn11", gpus=8)
    pod(server, "other-0", "gn10", gpus=4, owner=("Deployment", "other"))
    for number in range(5):
        submit(server, f"w{number}")
    plan = plan_of(settings, budget_kw=65)
    del server.objects["pods", "team-b", "other-0"]  # 5 kW are free again
    for number in range(grown):
        pod(server, f"serve-{number + 1}", f"gn0{number + 8}", gpus=4)
    done = KubernetesWriter(settings).apply(plan)
    assert len(running(server)) == starts
    skipped = [one for one in done.skipped if one.job_id.startswith("team-a/")]
    assert [one.why.code for one in skipped] == [Skip.TAKEN_SINCE] * (5 - starts)
    assert all("others took" in one.reason for one in skipped)
    if not starts:
        KubernetesWriter(settings).apply(plan_of(settings, budget_kw=65))
        assert running(server), "the next plan counts them"


def test_a_job_that_its_user_starts_since_the_snapshot_holds_back_others(server, settings):
    for number in range(6):
        submit(server, f"w{number}")
    submit(server, "own", pods=2)
    plan = plan_of(settings)
    server.change("jobs", "own", "team-a", {"spec": {"suspend": False}})  # its pods are on no node yet
    done = KubernetesWriter(settings).apply(plan)
    assert running(server) == ["own"]
    assert {one.why.code for one in done.skipped if one.job_id != "team-a/own"} == {Skip.TAKEN_SINCE}


def test_a_running_job_that_grew_holds_back_others(server, settings):
    submit(server, "grows", suspend=False)
    pod(server, "grows-1", "gn01", gpus=8, owner=("Job", "grows"))
    server.objects["pods", "team-a", "grows-1"] = server.objects.pop(("pods", "team-b", "grows-1"))
    server.objects["pods", "team-a", "grows-1"]["metadata"]["namespace"] = "team-a"
    for number in range(5):
        submit(server, f"w{number}")
    plan = plan_of(settings)
    again = {"spec": {"nodeName": "gn09"}, "metadata": {"name": "grows-2", "namespace": "team-a"}}
    first = server.get("pods", "grows-1", "team-a")
    server.put(
        "pods", {**first, "metadata": first["metadata"] | again["metadata"], "spec": first["spec"] | again["spec"]}
    )
    KubernetesWriter(settings).apply(plan)
    assert running(server) == ["grows"]


def test_the_same_plan_again_counts_what_it_started_itself(server, settings):
    for number in range(8):
        submit(server, f"w{number}")
    plan = plan_of(settings, slots=5)
    writer = KubernetesWriter(settings)
    assert writer.apply(plan).failed == []
    for number, name in enumerate(running(server)):
        pod(server, f"{name}-x", NODES[number], gpus=8, owner=("Job", name))
        raw = server.objects.pop(("pods", "team-b", f"{name}-x"))
        raw["metadata"]["namespace"] = "team-a"
        server.objects["pods", "team-a", f"{name}-x"] = raw
    again = writer.apply(plan)
    assert (again.commands, [one.why.code for one in again.skipped]) == ([], [Skip.RUNS_ALREADY] * 6)


def test_what_the_snapshot_counts_already_is_nothing_new(server, settings):
    """Parts of a GPU, pods on more GPUs than their node has, a node at its maximum: no false alarm for ever."""
    submit(server, "part", suspend=False)
    submit(server, "a")
    pod(server, "part-1", "gn01", gpus=1, owner=("Job", "part"))
    raw = server.objects.pop(("pods", "team-b", "part-1"))
    server.put("pods", raw | {"metadata": raw["metadata"] | {"namespace": "team-a"}})
    pod(server, "sliced", "gn02", gpus=80)
    plan = plan_of(settings, budget_kw=200)
    (start,) = [one for one in plan.assignments if one.job_id == "team-a/a"]
    runs = [msgspec.structs.replace(one, gpus=0) for one in plan.assignments if one.job_id == "team-a/part"]
    jobs = tuple(
        msgspec.structs.replace(one, gpu_share="1/7") if one.job_id == "team-a/part" else one
        for one in plan.snapshot.jobs
    )
    snapshot = msgspec.structs.replace(plan.snapshot, jobs=jobs, stale_nodes=("gn02",))
    plan = msgspec.structs.replace(plan, snapshot=snapshot, assignments=(start, *runs))
    full = [msgspec.structs.replace(zone, planned_w=zone.budget_w) for zone in plan.zones]
    KubernetesWriter(settings).apply(msgspec.structs.replace(plan, zones=tuple(full)))
    assert running(server) == ["a", "part"]


def test_pods_that_cannot_be_counted_before_a_start_are_named_and_start_nothing(server, settings):
    submit(server, "a")
    plan = plan_of(settings)
    server.forbidden.add(("list", "pods"))
    (failed,) = KubernetesWriter(settings).apply(plan).failed
    assert "403" in failed.error
    assert running(server) == []
    assert KubernetesReader(SITE, settings), "the reader itself needs them as well"
