"""Plans written into a real Kubernetes with kwok's nodes, and into a real Kueue."""

import json
import subprocess
import threading
import time
from contextlib import suppress
from datetime import datetime

import msgspec
import pytest
import yaml

from powerhall.plan.plan import read_plan
from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer.schedulers.kubernetes.decisions import decide
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes import cluster as rig
from rigs.kubernetes.work import SITE, WATTS, Watch, job, local_queue, needs, plan_of, running_gpus, until_gpus, write

pytestmark = needs("kueue", in_make=False)


def test_a_hundred_jobs_under_a_budget_that_is_cut(cluster, team, settings):
    cluster.apply(*(job(team, f"job{n}", gpus=4, labels={"n": str(n)}) for n in range(100)))
    writer, watch = KubernetesWriter(settings), Watch(cluster)
    watch.start()
    plan = plan_of(settings)
    assert writer.apply(plan).failed == []
    until_gpus(cluster, 48)
    again = writer.apply(plan_of(settings))
    assert (again.commands, again.failed) == ([], [])
    queue = KubernetesReader(SITE, settings).read()
    starts = [one.job_id for one in queue.jobs if one.state == "running"][4:]
    low = plan_of(settings, budget_kw=20, stopped=starts)
    done = writer.apply(low)
    assert done.failed == []
    rig.until("the stopped jobs are gone", lambda: running_gpus(cluster) <= 16)
    cut_s = time.time()
    time.sleep(2)
    watch.ends.set()
    watch.join()
    assert max(gpus for _, gpus in watch.samples) * WATTS <= 60_000
    assert max(gpus for at_s, gpus in watch.samples if at_s >= cut_s) * WATTS <= 20_000
    assert len(watch.samples) >= 10


def test_a_stopped_job_goes_on_in_another_mode_as_the_same_job(cluster, team, settings):
    cluster.apply(job(team, "train", pods=2))
    writer = write(settings)
    until_gpus(cluster, 16)
    before = cluster.get("job", "train", "-n", team)
    assert before["spec"]["template"]["metadata"]["annotations"]["powerhall.io/mode"] == "fast"
    assert writer.apply(plan_of(settings, stopped=[f"{team}/train"])).failed == []
    until_gpus(cluster, 0)
    plan = plan_of(settings)
    (start,) = plan.assignments
    slow = msgspec.structs.replace(start, mode="eco", gpu_power_w=1000.0)
    alone = decide(cluster.get("job", "train", "-n", team), slow, settings, time.time())
    patch = json.dumps(alone.patch)  # the server takes it without the writer's steps
    cluster.kubectl("patch", "job", "train", "-n", team, "--type=merge", "--dry-run=server", "-p", patch)
    done = writer.apply(msgspec.structs.replace(plan, assignments=(slow,)))
    assert done.failed == []
    until_gpus(cluster, 16)
    after = cluster.get("job", "train", "-n", team)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    pods = cluster.get("pods", "-n", team, "-l", "job-name=train")["items"]
    live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    assert {pod["metadata"]["annotations"]["powerhall.io/mode"] for pod in live} == {"eco"}


def test_a_level_of_a_running_job_is_on_its_pods(cluster, team, settings):
    cluster.apply(job(team, "train", pods=2))
    writer = write(settings)
    until_gpus(cluster, 16)
    plan = plan_of(settings)
    (runs,) = plan.assignments
    assert runs.running
    slow = msgspec.structs.replace(runs, mode="eco", gpu_power_w=1000.0)
    assert writer.apply(msgspec.structs.replace(plan, assignments=(slow,))).failed == []
    pods = cluster.get("pods", "-n", team)["items"]
    assert {pod["metadata"]["annotations"]["powerhall.io/gpu-power-w"] for pod in pods} == {"1000"}


def test_what_holds_gpus_is_counted_whoever_made_it(cluster, team, settings):
    deployment = job(team, "serve", pods=1)["spec"]["template"]["spec"] | {"restartPolicy": "Always"}
    labels = {"app": "serve"}
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "serve", "namespace": team},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": deployment},
            },
        },
        job(team, "tenants-own", labels={"powerhall.io/managed": "false"}, suspend=False),
    )
    try:
        until_gpus(cluster, 32)
        queue = KubernetesReader(SITE, settings).read()
        assert sum(one.gpus for one in queue.jobs if one.state == "running") == 32
        cluster.kubectl("cordon", "gn07")
        assert "gn07" in KubernetesReader(SITE, settings).read().down_nodes
    finally:
        cluster.kubectl("uncordon", "gn07")
        cluster.kubectl("delete", "deployment", "serve", "-n", team)


@pytest.mark.parametrize(
    ("role", "resource", "seen"),
    [
        ("jobs", "jobs", "patch job"),
        ("jobs", "events", "event of"),
        ("jobs", "jobs/status", "patch status of job"),
    ],
)
def test_a_right_that_lacks_is_named_and_ends_nothing_else(cluster, team, settings, root, role, resource, seen):
    cluster.apply(job(team, "a"), job(team, "b"))
    writer = KubernetesWriter(settings)
    if resource == "jobs/status":
        assert writer.apply(plan_of(settings)).failed == []
        both = [f"{team}/a", f"{team}/b"]
        assert writer.apply(plan_of(settings, stopped=both)).failed == []
        until_gpus(cluster, 0)
        if not any(one["status"].get("startTime") for one in cluster.get("jobs", "-n", team)["items"]):
            pytest.skip("this Kubernetes clears the start of a suspended job itself, so that the right is not needed")
    documents = list(yaml.safe_load_all((root / "deploy/kubernetes/rbac.yaml").read_text()))
    narrow = next(d for d in documents if d["metadata"]["name"] == f"powerhall-optimizer-{role}" and "rules" in d)
    for rule in narrow["rules"]:
        if rule["resources"] == [resource]:
            rule["verbs"] = [verb for verb in rule["verbs"] if verb in ("get", "list", "watch")] or ["get"]
    cluster.apply(narrow)
    try:
        plan = plan_of(settings)
        if resource == "jobs/status":
            slow = [msgspec.structs.replace(a, mode="eco", gpu_power_w=1000.0) for a in plan.assignments]
            plan = msgspec.structs.replace(plan, assignments=tuple(slow))
        failed = writer.apply(plan).failed
    finally:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(root / "deploy/kubernetes/rbac.yaml"))
    assert len(failed) == 2
    assert all(seen in f"{c.text} {c.error}" and "403" in c.error for c in failed)


def test_a_server_that_is_killed_in_a_round_and_comes_back(cluster, team, settings):
    cluster.apply(*(job(team, f"job{n}", gpus=1) for n in range(20)))
    plan = plan_of(settings)
    timer = threading.Timer(0.4, lambda: cluster.end("kube-apiserver", kill=True))
    timer.start()
    quick = msgspec.structs.replace(settings, timeout_s=3.0)
    with suppress(PowerhallError):  # it may end before the first write
        assert KubernetesWriter(quick).apply(plan).commands, "what was written is in the report"
    timer.join()
    if "kube-apiserver" not in cluster.processes:
        cluster.run("kube-apiserver", cluster.commands["kube-apiserver"])
    cluster.wait()
    time.sleep(settings.lease_s)
    write(settings)
    until_gpus(cluster, 20)


def test_the_manifests_are_taken_by_the_server(cluster, root):
    for name in ("powerhall.yaml", "rbac.yaml"):
        cluster.kubectl("apply", "--server-side", "--dry-run=server", "-f", str(root / "deploy/kubernetes" / name))


def test_the_charts_cycle_reaches_the_cluster(cluster, team, settings, root, tmp_path):
    """The CronJob's own commands, as processes with the token of its account: queue, round, schedule, and again."""
    documents = list(yaml.safe_load_all((root / "deploy/kubernetes/powerhall.yaml").read_text()))
    cron = next(d for d in documents if d and d["kind"] == "CronJob")
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    steps = [*pod["initContainers"], *pod["containers"]]
    assert [one["args"][0] for one in steps] == ["queue", "round", "schedule"]
    cluster.apply(job(team, "a"))
    fields = msgspec.to_builtins(settings)
    table = "\n".join(
        f"{key} = {json.dumps(fields[key])}" for key in ("server", "ca_file", "token_file", "lease_s", "identity")
    )
    (tmp_path / "scheduler.toml").write_text(f"[kubernetes]\n{table}\n")
    (tmp_path / "site.toml").write_text(SITE_TOML)
    for step in steps:
        run_step(root, tmp_path, step["args"])
    plan = read_plan(tmp_path / "plan.json")
    (start,) = plan.assignments
    noted = cluster.get("job", "a", "-n", team)["metadata"]["annotations"]["powerhall.io/start"]
    assert datetime.fromisoformat(noted).timestamp() == start.start_s
    assert cluster.get("events", "-n", team)["items"], "the reason is an event of the job"
    time.sleep(settings.lease_s)
    later = KubernetesWriter(settings, clock=lambda: max(time.time(), start.start_s + 1.0))  # the next slot
    assert later.apply(plan).failed == []
    until_gpus(cluster, 8)
    for step in steps[:2]:
        run_step(root, tmp_path, step["args"])
    again = read_plan(tmp_path / "plan.json")
    assert [(one.job_id, one.running) for one in again.assignments] == [(f"{team}/a", True)], "it is let run"


def run_step(root, folder, step):
    """Run a container's command with files of this folder in the place of its own."""
    places = {
        "/etc/powerhall-scheduler/scheduler.toml": "scheduler.toml",
        "/etc/powerhall/site.toml": "site.toml",
        "/var/lib/powerhall-optimizer/plan.json": "plan.json",
    }
    arguments = [str(folder / places[one]) if one in places else one for one in step]
    arguments = [f"sqlite:///{folder}/store.db" if one.startswith("influxdb") else one for one in arguments]
    arguments += ["--seconds", "5"] if arguments[0] == "round" else []
    command = [root / ".venv/bin/powerhall-optimizer", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments[0]}: {done.stdout}{done.stderr}"


SITE_TOML = """
[site]
name = "s1"
power_limit = "120 kW"
[node_types.h]
gpu = "H100"
gpus = 8
idle_power = "1.8 kW"
max_power = "10.2 kW"
modes = [{name = "p700", gpu_power = "970 W", speed = 1.0}]
[[halls]]
name = "hall1"
rows = [{name = "a", racks = [{node_type = "h", name = "r", nodes = "gn[01-12]"}]}]
"""


def usage_w(cluster):
    queue = cluster.get("clusterqueue", "hall1")
    for flavour in queue.get("status", {}).get("flavorsReservation", ()):
        for resource in flavour["resources"]:
            if resource["name"] == "powerhall.io/watts":
                total = str(resource["total"])
                return float(total.removesuffix("k")) * (1000 if total.endswith("k") else 1)
    return 0.0


def test_kueue_admits_what_is_planned_and_a_cut_stops_it(cluster, queues, team, settings):
    settings = msgspec.structs.replace(settings, queues={"hall1": "hall1"}, cluster_queue="hall1", settle_s=1.0)
    cluster.apply(*(job(team, f"job{n}") for n in range(8)))
    writer = KubernetesWriter(settings)
    first = writer.apply(plan_of(settings))
    assert {c.error for c in first.failed} == {f"namespace {team} has no LocalQueue hall1"}
    cluster.apply(local_queue(team))
    assert writer.apply(plan_of(settings)).failed == []
    until_gpus(cluster, 48)
    rig.until("Kueue counts them", lambda: usage_w(cluster) == 48 * 1275)
    assert writer.apply(plan_of(settings)).failed == []
    queue = KubernetesReader(SITE, settings).read()
    running = sorted(one.job_id for one in queue.jobs if one.state == "running")
    done = writer.apply(plan_of(settings, budget_kw=40, stopped=running[:2]))
    assert done.failed == []
    until_gpus(cluster, 32)
    time.sleep(5)  # Kueue turns `suspend` back within seconds; an inactive Workload stays
    assert running_gpus(cluster) == 32
    assert usage_w(cluster) <= 32 * 1275
    assert writer.apply(plan_of(settings)).failed == []
    until_gpus(cluster, 48)
