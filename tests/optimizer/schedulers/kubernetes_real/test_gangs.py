"""JobSets, RayJobs and LeaderWorkerSets under their own controllers, in a real Kubernetes."""

import time

import msgspec
import pytest

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes import gang_controllers
from rigs.kubernetes.work import SITE, WATTS, Watch, job, needs, plan_of, running_gpus, until_gpus, write
from rigs.kubernetes_gangs import job_set, leader_worker_set, ray_job

pytestmark = needs("jobset", "ray-operator")


@pytest.fixture(scope="module")
def gangs(cluster):
    with gang_controllers.start(cluster):
        yield cluster


@pytest.fixture(autouse=True)
def nothing_left(gangs, team):
    yield
    gangs.kubectl("delete", "jobset,rayjob,raycluster,leaderworkerset", "--all", "-n", team, "--wait=false")


def seen(settings):
    return {one.job_id: one for one in KubernetesReader(SITE, settings).read().jobs}


def test_job_sets_run_as_gangs_and_a_cut_stops_one_whole(gangs, team, settings):
    """60 kW are 48 GPUs: two JobSets of 24 run, a third waits; a cut to 40 kW stops one of them, all its pods."""
    gangs.apply(*(job_set(team, f"set{n}", lead=(1, 1, 0), work=(3, 1, 8)) for n in range(3)))
    writer = KubernetesWriter(settings)
    with Watch(gangs) as watch:
        assert writer.apply(plan_of(settings)).failed == []
        until_gpus(gangs, 48)
        found = seen(settings)
        assert sorted(one.gpus for one in found.values() if one.state == "running") == [24, 24]
        assert set(found) == {f"{team}/jobset/set{n}" for n in range(3)}, "no pod is counted beside its JobSet"
        again = writer.apply(plan_of(settings))
        assert again.failed == []
        starts = sorted(name for name, one in found.items() if one.state == "running")
        done = writer.apply(plan_of(settings, budget_kw=40, stopped=starts[1:]))
        assert done.failed == []
        until_gpus(gangs, 24)
    assert max(gpus for _, gpus in watch.samples) * WATTS <= 60_000
    time.sleep(2)
    assert running_gpus(gangs) == 24
    levels = writer.apply(plan_of(settings, budget_kw=40))
    assert levels.failed == []
    pods = gangs.get("pods", "-n", team, "-l", f"jobset.sigs.k8s.io/jobset-name={starts[0].rpartition('/')[2]}")[
        "items"
    ]
    assert {pod["metadata"]["annotations"].get("powerhall.io/mode") for pod in pods} == {"fast"}
    assert writer.apply(plan_of(settings)).failed == []
    until_gpus(gangs, 48)


def test_a_ray_job_is_its_cluster_and_is_stopped_whole(gangs, team, settings):
    gangs.apply(ray_job(team, "ray", head=1, workers=2, gpus=8), job(team, "plain"))
    writer = write(settings)
    until_gpus(gangs, 25)
    found = seen(settings)
    assert {name: (one.state, one.gpus) for name, one in found.items()} == {
        f"{team}/rayjob/ray": ("running", 17),
        f"{team}/plain": ("running", 8),
    }
    done = writer.apply(plan_of(settings, budget_kw=20, stopped=[f"{team}/rayjob/ray"]))
    assert done.failed == []
    until_gpus(gangs, 8)
    assert seen(settings)[f"{team}/rayjob/ray"].state == "waiting"
    assert writer.apply(plan_of(settings)).failed == []
    until_gpus(gangs, 25)


def test_a_leader_worker_set_is_left_out_with_its_reason(gangs, team, settings):
    gangs.apply(leader_worker_set(team, "serve", 1, 2, 4), job(team, "plain"))
    queue = KubernetesReader(SITE, settings).read()
    unbound = f"Unbound:{team}/leaderworkerset/serve"  # it is admitted, and no controller makes its pods here
    assert {one.job_id: one.gpus for one in queue.jobs} == {unbound: 8, f"{team}/plain": 8}
    assert "has no suspend" in queue.left_out[f"{team}/leaderworkerset/serve"]


def test_pods_of_stopped_jobs_that_linger_hold_back_what_comes_in_their_place(gangs, team, settings):
    """40 kW are four jobs; pods of the stopped one do not end: the fifth waits until they have."""
    slow = {"metadata": {"finalizers": ["powerhall.test/slow"]}}
    first = job(team, "first", pods=4)
    first["spec"]["template"] |= slow
    gangs.apply(first)
    writer = KubernetesWriter(msgspec.structs.replace(settings, grace_s=2.0))
    assert writer.apply(plan_of(settings, budget_kw=40)).failed == []
    until_gpus(gangs, 32)
    gangs.apply(job(team, "second", pods=4))
    with Watch(gangs) as watch:
        plan = plan_of(settings, budget_kw=40, stopped=[f"{team}/first"])
        assert [one.job_id for one in plan.assignments] == [f"{team}/second"]
        assert writer.apply(plan).failed == []
        time.sleep(2)
        assert gangs.get("job", "second", "-n", team)["spec"]["suspend"] is True
        for pod in gangs.get("pods", "-n", team)["items"]:
            name = pod["metadata"]["name"]
            gangs.kubectl("patch", "pod", name, "-n", team, "-p", '{"metadata":{"finalizers":null}}', "--type=merge")
        until_gpus(gangs, 0)
        assert writer.apply(plan_of(settings, budget_kw=40, stopped=[f"{team}/first"])).failed == []
        until_gpus(gangs, 32)
    assert max(gpus for _, gpus in watch.samples) * WATTS <= 40_000
