"""Plans written into Kubernetes, by the real client against a small fake API server; kubectl looks at the result."""

import shutil
import subprocess
import threading
import time

import msgspec
import pytest
import yaml

from powerhall.runtime.errors import ConfigError, Retryable
from powerhall_optimizer.schedulers.kubernetes.api_client import open_api
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesReader, KubernetesWriter
from rigs import kubernetes_api
from rigs.plans import greedy_plan, small_site

pytestmark = pytest.mark.rig

NODES = tuple(f"gn{n:02d}" for n in range(1, 13))
SITE = small_site(NODES)


@pytest.fixture
def server():
    with kubernetes_api.start() as rig:
        for name in NODES:
            conditions = [{"type": "Ready", "status": "False" if name == "gn12" else "True"}]
            rig.put("nodes", {"metadata": {"name": name}, "status": {"conditions": conditions}})
        yield rig


@pytest.fixture
def settings(server):
    return KubernetesSettings(server=server.url, timeout_s=10.0)


def submit(server, name, gpus=8, pods=1, annotations=None, labels=None, suspend=True, duration="10 min"):
    notes = {"powerhall.io/duration": duration} | (annotations or {})
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    return server.put(
        "jobs",
        {
            "metadata": {
                "name": name,
                "namespace": "team-a",
                "labels": {"powerhall.io/managed": "true"} | (labels or {}),
                "annotations": notes,
            },
            "spec": {"suspend": suspend, "parallelism": pods, "template": {"spec": {"containers": [container]}}},
        },
    )


def job(server, name):
    return server.get("jobs", name, "team-a")


def notes(server, name):
    found = job(server, name)["metadata"]["annotations"]
    return {key.removeprefix("powerhall.io/"): value for key, value in found.items()}


def plan_of(settings, budget_kw=60, slots=30, site=SITE, **kwargs):
    queue = KubernetesReader(site, settings).read()
    budget = [budget_kw * 1000] * slots if isinstance(budget_kw, int) else [kw * 1000 for kw in budget_kw]
    return greedy_plan(site, queue.jobs, start_s=int(time.time()), slot_s=60, budget_w=budget, **kwargs)


def writes(server):
    return [
        (verb, what) for verb, what in server.requests if verb in ("create", "patch", "update") and what != "leases"
    ]


def test_jobs_and_nodes_are_read(server, settings):
    submit(server, "big", pods=2, annotations={"powerhall.io/preemptible": "true", "powerhall.io/class": "train"})
    submit(server, "runs", gpus=4, suspend=False)
    server.change("jobs", "runs", "team-a", {"status": {"startTime": "2026-01-01T01:00:00Z"}})
    submit(server, "wrong", annotations={"powerhall.io/duration": "ten minutes"})
    submit(server, "cpu", gpus=0)
    submit(server, "ended")
    server.change("jobs", "ended", "team-a", {"status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    submit(server, "other", labels={"powerhall.io/managed": "false"})
    queue = KubernetesReader(SITE, settings).read()
    jobs = {one.job_id: one for one in queue.jobs}
    assert set(jobs) == {"team-a/big", "team-a/runs"}
    big = jobs["team-a/big"]
    assert (big.gpus, big.duration_s, big.job_class, big.preemptible, big.state) == (
        16,
        600.0,
        "train",
        True,
        "waiting",
    )
    assert (jobs["team-a/runs"].state, jobs["team-a/runs"].hall) == ("running", "hall1")
    assert "powerhall.io/duration: 'ten minutes'" in queue.left_out["team-a/wrong"]
    assert queue.left_out["team-a/cpu"] == "asks for no nvidia.com/gpu"
    assert queue.down_nodes == ("gn12",)


def test_a_plan_unsuspends_with_a_reason_and_a_second_round_writes_nothing(server, settings):
    for number in range(8):
        submit(server, f"job{number}", pods=2)  # 20 kW each: three now, three in ten minutes, two never
    plan = plan_of(settings, slots=20)
    writer = KubernetesWriter(settings)
    dry = writer.apply(plan, dry_run=True)
    assert len(dry.commands) == 8
    assert writes(server) == []
    done = writer.apply(plan)
    assert done.failed == []
    assert [c.text for c in done.commands] == [c.text for c in dry.commands]
    running = [name for name in server.names("jobs") if not job(server, name)["spec"]["suspend"]]
    assert len(running) == 3
    told = notes(server, running[0])
    assert (told["hall"], told["mode"], told["gpu-power-w"]) == ("hall1", "fast", "1250")
    pod = job(server, running[0])["spec"]["template"]["metadata"]["annotations"]
    assert pod == {"powerhall.io/mode": "fast", "powerhall.io/gpu-power-w": "1250"}
    events = server.all("events")
    assert sorted(event["reason"] for event in events) == ["Planned"] * 3 + ["Started"] * 3 + ["Waiting"] * 2
    assert {event["involvedObject"]["kind"] for event in events} == {"Job"}
    assert any("waits for 20 kW" in event["message"] for event in events)
    server.requests.clear()
    again = writer.apply(plan)
    assert (again.commands, again.failed) == ([], [])
    assert writes(server) == []


def test_a_conflict_is_read_again_and_the_users_change_is_kept(server, settings):
    submit(server, "a")
    plan = plan_of(settings)
    meddled = []

    def meddle(name):
        if not meddled:
            meddled.append(name)
            server.change("jobs", "a", "team-a", {"metadata": {"labels": {"mine": "yes"}}})

    server.before_patch = meddle
    assert KubernetesWriter(settings).apply(plan).failed == []
    assert meddled == ["a"]
    assert job(server, "a")["spec"]["suspend"] is False
    assert job(server, "a")["metadata"]["labels"]["mine"] == "yes"


def test_a_job_that_others_change_all_the_time_is_reported_and_the_next_one_goes_on(server, settings):
    submit(server, "busy")
    submit(server, "calm")
    plan = plan_of(settings)
    server.before_patch = lambda name: (
        server.change("jobs", name, "team-a", {"metadata": {"annotations": {"tick": str(server.version)}}})
        if name == "busy"
        else None
    )
    done = KubernetesWriter(settings).apply(plan)
    assert [c.subject for c in done.failed] == ["job team-a/busy"]
    assert job(server, "calm")["spec"]["suspend"] is False
    assert job(server, "busy")["spec"]["suspend"] is True


def test_a_job_that_its_user_suspends_again_is_left_alone(server, settings):
    submit(server, "a")
    plan = plan_of(settings)
    writer = KubernetesWriter(settings)
    assert writer.apply(plan).failed == []
    server.change("jobs", "a", "team-a", {"spec": {"suspend": True}})
    done = writer.apply(plan)
    assert done.commands == []
    assert "changed by somebody else" in done.skipped[0].reason
    server.change("jobs", "a", "team-a", {"metadata": {"annotations": {"powerhall.io/wrote": None}}})
    assert len(writer.apply(plan).commands) == 1


def test_a_preemptible_job_that_the_plan_stops_is_suspended(server, settings):
    submit(server, "a", annotations={"powerhall.io/preemptible": "true"})
    writer = KubernetesWriter(settings)
    assert writer.apply(plan_of(settings)).failed == []
    server.change("jobs", "a", "team-a", {"status": {"startTime": "2026-01-01T00:00:00Z", "active": 1}})
    assert writer.apply(plan_of(settings, stopped=["team-a/a"])).failed == []
    assert job(server, "a")["spec"]["suspend"] is True
    assert server.all("events")[-1]["reason"] == "Stopped"


def quota(server):
    spec = server.get("clusterqueues", "hall1")["spec"]
    return {r["name"]: str(r["nominalQuota"]) for r in spec["resourceGroups"][0]["flavors"][0]["resources"]}


def test_kueue_gets_queue_labels_and_a_quota_in_watts_that_follows_the_budget(server, settings, root):
    documents = list(yaml.safe_load_all((root / "deploy/kubernetes/kueue.yaml").read_text()))
    server.put("clusterqueues", next(d for d in documents if d["kind"] == "ClusterQueue"))
    settings = msgspec.structs.replace(settings, queues={"hall1": "hall1"}, cluster_queue="hall1")
    submit(server, "a", pods=2)
    writer = KubernetesWriter(settings)
    plan = plan_of(settings)
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


def test_only_one_optimizer_leads(server, settings):
    submit(server, "a")
    plan = plan_of(settings)
    KubernetesWriter(settings, holder="first").apply(plan)
    with pytest.raises(Retryable, match="first leads for another"):
        KubernetesWriter(settings, holder="second").apply(plan)
    KubernetesWriter(settings, holder="first").apply(plan)
    late = KubernetesWriter(settings, holder="second", clock=lambda: time.time() + settings.lease_s + 1)
    late.apply(plan)
    lease = server.get("leases", "powerhall-optimizer", "powerhall")["spec"]
    assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("second", 1)


def test_of_two_that_take_an_expired_lease_at_once_one_wins(server, settings):
    plan_jobs = submit(server, "a")
    assert plan_jobs
    plan = plan_of(settings)
    KubernetesWriter(settings, holder="old").apply(plan)
    barrier, won, lost = threading.Barrier(2), [], []

    def contend(name):
        api = open_api(settings)
        first = api.lease

        def slow(body=None, *, create=False):
            if body is not None:
                barrier.wait(5)  # both have read the same version
            return first(body, create=create)

        api.lease = slow
        writer = KubernetesWriter(settings, api, clock=lambda: time.time() + 100, holder=name)
        try:
            writer.apply(plan)
            won.append(name)
        except Retryable as error:
            lost.append(str(error))

    threads = [threading.Thread(target=contend, args=(name,)) for name in ("b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(won), len(lost)) == (1, 1)
    assert "took the lease" in lost[0]


def test_a_controller_that_turns_a_write_back_is_seen_by_the_watch(server, settings):
    submit(server, "a")
    settings = msgspec.structs.replace(settings, settle_s=1.0)
    plan = plan_of(settings)
    timer = threading.Timer(0.5, lambda: server.change("jobs", "a", "team-a", {"spec": {"suspend": True}}))
    timer.start()
    done = KubernetesWriter(settings).apply(plan)
    timer.join()
    assert [c.error for c in done.failed] == ["was suspended again by somebody else"]


def test_a_watch_that_began_too_far_back_lists_again(server, settings):
    submit(server, "a")
    settings = msgspec.structs.replace(settings, settle_s=1.0)
    plan = plan_of(settings)
    events = server.put

    def put(resource, raw):
        made = events(resource, raw)
        if resource == "events":  # the last write of the job: now the server forgets its history
            events("jobs", job(server, "a") | {"spec": job(server, "a")["spec"] | {"suspend": True}})
            server.cut_history()
        return made

    server.put = put
    done = KubernetesWriter(settings).apply(plan)
    assert [c.error for c in done.failed] == ["was suspended again by somebody else"]
    assert server.requests.count(("list", "jobs")) == 3


def test_missing_rights_and_a_dead_server_are_one_line(server, settings):
    submit(server, "a")
    plan = plan_of(settings)
    server.forbidden.add(("patch", "jobs"))
    with pytest.raises(ConfigError, match=r"403 Forbidden: the service account needs the role"):
        KubernetesWriter(settings).apply(plan)
    dead = msgspec.structs.replace(settings, server="http://127.0.0.1:21799", timeout_s=2.0)
    with pytest.raises(Retryable, match="kubernetes: list jobs"):
        KubernetesReader(SITE, dead).read()


def test_the_role_grants_what_a_round_uses_and_nothing_else(server, settings, root):
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
    assert set(server.requests) == granted


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_sees_the_plan_and_its_changes_are_respected(server, settings, tmp_path):
    submit(server, "a")
    writer, plan = KubernetesWriter(settings), plan_of(settings)
    assert writer.apply(plan).failed == []

    def kubectl(*arguments):
        env = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path)}
        command = ["kubectl", "--server", server.url, "-n", "team-a", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=30).stdout

    assert kubectl("get", "job", "a", "-o", "jsonpath={.spec.suspend}") == "false"
    assert "Started" in kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
    kubectl("patch", "job", "a", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    done = writer.apply(plan)
    assert done.commands == []
    assert "changed by somebody else" in done.skipped[0].reason
