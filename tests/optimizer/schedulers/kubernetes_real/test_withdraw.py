"""Jobs that an optimizer left waiting when it died, in a real Kubernetes: its watchdog releases them."""

import json
import os
import subprocess
import time
from random import Random

import msgspec
import pytest
import yaml

from powerhall.plan.plan import write_plan
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes import cluster as rig
from rigs.kubernetes.work import SITE, WATTS, Watch, job, local_queue, needs, plan_of, running_gpus, until_gpus

pytestmark = needs("kueue", in_make=False)


def release_settings(settings, **more):
    return msgspec.structs.replace(settings, round_s=1.0, lease_s=2, **more)


def as_process(root, folder, settings, *arguments):
    """Start `powerhall-optimizer schedule` of its own, with these settings."""
    fields = msgspec.to_builtins(settings)
    keys = ("server", "ca_file", "token_file", "lease_s", "identity", "round_s", "cluster_queue")
    table = "".join(f"{key} = {json.dumps(fields[key])}\n" for key in keys)
    queues = "".join(f"{hall} = {json.dumps(name)}\n" for hall, name in settings.queues.items())
    (folder / "scheduler.toml").write_text(f"[kubernetes]\n{table}[kubernetes.queues]\n{queues}")
    command = [root / ".venv/bin/powerhall-optimizer", "schedule", "--scheduler", "kubernetes"]
    command += ["--settings", folder / "scheduler.toml", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def watchdog(root):
    """Return the arguments of the chart's watchdog, which has neither the plan nor the store nor the site."""
    documents = yaml.safe_load_all((root / "deploy/kubernetes/powerhall.yaml").read_text())
    cron = next(d for d in documents if d and d["kind"] == "CronJob" and d["metadata"]["name"].endswith("-withdraw"))
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert {volume["name"] for volume in pod["volumes"]} == {"scheduler", "tmp"}
    return pod["containers"][0]["args"][5:]


def leases(cluster):
    return cluster.kubectl("get", "lease", "-n", "powerhall", "-o", "yaml")


def jobs_on_nodes(cluster, team):
    """Return the jobs with a pod on a node."""
    pods = [pod for pod in cluster.get("pods", "-n", team)["items"] if pod["spec"].get("nodeName")]
    return {pod["metadata"]["labels"]["job-name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def wait_for_all(cluster, team, settings, names):
    """Let running jobs end (they are deleted) and look again, until every job has run."""
    has_run, writer, reports = set(), KubernetesWriter(settings), []
    end_s = time.monotonic() + 180
    while time.monotonic() < end_s:
        runs = jobs_on_nodes(cluster, team)
        has_run |= runs
        if has_run == set(names):
            return
        if runs:
            cluster.kubectl("delete", "job", *sorted(runs)[:2], "-n", team, "--cascade=foreground", "--wait=true")
        reports.append(writer.withdraw_pins())
        assert reports[-1].failed == []
    raise AssertionError(f"still held: {sorted(set(names) - has_run)}: {reports[-1]}")


@pytest.fixture(params=["suspended Jobs", "Kueue"])
def way(request, cluster, team):
    """How jobs are started: the settings for it."""
    if request.param == "suspended Jobs":
        return {}
    if "POWERHALL_KUBERNETES" not in os.environ:
        pytest.skip("make test-kubernetes runs it")
    request.getfixturevalue("queues")
    cluster.apply(local_queue(team))
    return {"queues": {"hall1": "hall1"}, "cluster_queue": "hall1"}


def test_an_optimizer_that_is_killed_holds_nobody(cluster, team, settings, way, root, tmp_path):
    """kill -9 at random points of its writes; its watchdog then releases every job, and never beyond the budget."""
    names = [f"job{number:02d}" for number in range(8)]
    cluster.apply(*(job(team, name) for name in names))  # 64 GPUs; 40 kW are 31 of them at their worst
    quick, random, killed = release_settings(settings, **way), Random(13), []
    for _ in range(3):
        queue = KubernetesReader(SITE, quick).read()
        runs = sorted(one.job_id for one in queue.jobs if one.state == "running")
        plan = plan_of(settings, budget_kw=40, stopped=runs[:1])
        write_plan(plan, tmp_path / "plan.json")
        process = as_process(root, tmp_path, quick, "--plan", tmp_path / "plan.json")
        rig.until("it leads", lambda at=plan.plan_id: at in leases(cluster))
        time.sleep(random.uniform(0, 0.4))
        process.kill()
        process.communicate()
        killed.append(process.returncode)
    assert killed.count(-9) >= 1
    with Watch(cluster) as watch:
        time.sleep(2 * quick.round_s + 1)
        process = as_process(root, tmp_path, quick, *watchdog(root))
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        wait_for_all(cluster, team, quick, names)
    assert max(gpus for _, gpus in watch.samples) * WATTS <= 40_000
    reasons = {event["reason"] for event in cluster.get("events", "-n", team)["items"]}
    assert "Released" in reasons


def test_nothing_is_released_while_somebody_plans(cluster, team, settings):
    cluster.apply(*(job(team, f"job{number}", gpus=8) for number in range(6)))
    writer = KubernetesWriter(settings)
    assert writer.apply(plan_of(settings, budget_kw=20)).failed == []
    assert writer.withdraw_pins().commands == []
    until_gpus(cluster, 16)
    later = KubernetesWriter(settings, clock=lambda: time.time() + 2 * settings.round_s + 5)
    dry = later.withdraw_pins(dry_run=True)
    assert dry.commands == []
    assert len(dry.skipped) == 4
    assert "16 GPUs" not in dry.skipped[0].reason
    cluster.kubectl("delete", "job", "job0", "-n", team, "--cascade=foreground", "--wait=true")
    until_gpus(cluster, 8)
    assert later.withdraw_pins().failed == [], "15 GPUs at their worst are 19 kW: one job is on them"
    assert running_gpus(cluster) == 8
    cluster.kubectl("delete", "job", "job1", "-n", team, "--cascade=foreground", "--wait=true")
    assert later.withdraw_pins().failed == []
    rig.until("the oldest runs", lambda: jobs_on_nodes(cluster, team) == {"job2"})
