"""Plans written into Kubernetes, by the real client against a small fake API server; kubectl looks at the result."""

import shutil
import subprocess
import time

import msgspec
import pytest

from powerhall.jobs.left_out import LeftOut, LeftOutCode
from powerhall_optimizer.schedulers.kubernetes.api_client import open_api
from powerhall_optimizer.schedulers.kubernetes.decisions import decide
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes_jobs import SITE, job, notes, plan_of, submit, writes

pytestmark = pytest.mark.rig


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


def test_where_a_stop_fails_nothing_starts(server, settings):
    submit(server, "a", annotations={"powerhall.io/preemptible": "true"})
    writer = KubernetesWriter(settings)
    assert writer.apply(plan_of(settings)).failed == []
    server.change("jobs", "a", "team-a", {"status": {"startTime": "2026-01-01T00:00:00Z", "active": 1}})
    submit(server, "b")
    plan = plan_of(settings, stopped=["team-a/a"])
    server.forbidden.add(("patch", "jobs"))
    done = writer.apply(plan)
    assert [c.subject for c in done.failed] == ["job team-a/a"]
    assert [one.subject for one in done.skipped] == ["job team-a/b"]
    assert job(server, "b")["spec"]["suspend"] is True


def test_a_job_made_anew_or_resized_since_the_snapshot_is_left_alone(server, settings):
    submit(server, "resized")
    submit(server, "anew")
    plan = plan_of(settings)
    server.change("jobs", "resized", "team-a", {"spec": {"parallelism": 3}})
    server.change("jobs", "anew", "team-a", {"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}})
    done = KubernetesWriter(settings).apply(plan)
    assert {one.why.code for one in done.skipped} == {"job_differs"}
    assert done.commands == []


@pytest.mark.parametrize("started", [None, "2026-01-01T00:00:00Z"])
@pytest.mark.parametrize("mode", [None, "fast", "eco"])
def test_each_patch_is_taken_as_it_is_and_the_writer_brings_the_level_to_the_pods(server, settings, started, mode):
    submit(server, "a")
    level = {"metadata": {"annotations": mode and {"powerhall.io/mode": mode, "powerhall.io/gpu-power-w": "1250"}}}
    server.change("jobs", "a", "team-a", {"spec": {"template": level}})
    server.change("jobs", "a", "team-a", {"status": {"startTime": started}})
    plan, before = plan_of(settings), job(server, "a")
    made = decide(before, plan.assignments[0], settings, time.time())
    open_api(settings).patch_job("team-a", "a", made.patch)
    assert job(server, "a")["spec"]["suspend"] is False
    server.put("jobs", before)
    assert KubernetesWriter(settings).apply(plan).failed == []
    assert job(server, "a")["spec"]["template"]["metadata"]["annotations"]["powerhall.io/mode"] == "fast"


def test_a_job_that_no_plan_can_have_says_why_itself(server, settings):
    submit(server, "evil", duration="0")
    submit(server, "good")
    queue, plan = KubernetesReader(SITE, settings).read(), plan_of(settings)
    told = tuple(LeftOut(name, LeftOutCode.SCHEDULER, why) for name, why in queue.left_out.items())
    plan = msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(plan.snapshot, left_out=told))
    assert KubernetesWriter(settings).apply(plan).failed == []
    assert notes(server, "evil")["reason"].startswith("not planned: powerhall.io/duration: '0': must be above 0")
    assert job(server, "evil")["spec"]["suspend"] is True
    assert [one["involvedObject"]["name"] for one in server.all("events") if one["reason"] == "LeftOut"] == ["evil"]
    assert KubernetesWriter(settings).apply(plan).commands == []
