"""Others write at the same time, in a real Kubernetes: another optimizer, a job's user, a server that forgets."""

import msgspec
import pytest

from powerhall.runtime.errors import ConfigError
from powerhall_optimizer.schedulers.kubernetes.api_client import Gone, open_api
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from powerhall_optimizer.schedulers.skip_reasons import Skip
from rigs.kubernetes import cluster as rig
from rigs.kubernetes.work import SITE, WATTS, Watch, job, landed, needs, plan_of, until_gpus, write

pytestmark = needs("kueue")


def after_listing(api, action):
    """Do something once, between what a round reads and what it writes."""
    listing, done = api.jobs, []

    def jobs():
        listed = listing()
        if not done:
            done.append(True)
            action()
        return listed

    api.jobs = jobs
    return api


def test_of_two_of_one_name_the_slower_writes_nothing_more(cluster, team, settings):
    """The older plan starts three jobs, the newer none: its process takes the lease while the older one reads."""
    cluster.apply(*(job(team, f"job{number}") for number in range(3)))
    older = plan_of(settings)
    newer = plan_of(settings, stopped=[one.job_id for one in older.assignments])
    assert (len(older.assignments), len(newer.assignments)) == (3, 0)
    reports = []
    api = after_listing(open_api(settings), lambda: reports.append(KubernetesWriter(settings).apply(newer)))
    slow = KubernetesWriter(settings, api=api).apply(older)
    assert reports[0].failed == []
    assert [("took the lease" in command.error) for command in slow.commands] == [True]
    spec = [one["spec"]["suspend"] for one in cluster.get("jobs", "-n", team)["items"]]
    assert spec == [True] * 3


def test_of_two_names_at_once_one_writes(cluster, team, settings):
    cluster.apply(job(team, "a"))
    plan = plan_of(settings)
    write(settings, plan)
    other = msgspec.structs.replace(settings, identity="other")
    with pytest.raises(Exception, match="test leads for another"):
        KubernetesWriter(other).apply(plan)


def test_a_job_that_its_user_enlarges_while_a_round_writes_is_left_alone(cluster, team, settings):
    cluster.apply(job(team, "a", completions=4), job(team, "b"))
    plan = plan_of(settings)
    grow = ("job", "a", "-n", team, "--type=merge", "-p", '{"spec": {"parallelism": 2}}')
    api = after_listing(open_api(settings), lambda: cluster.kubectl("patch", *grow))
    done = KubernetesWriter(settings, api=api).apply(plan)
    assert done.failed == []
    assert [(one.job_id, one.why.code) for one in done.skipped] == [(f"{team}/a", Skip.JOB_DIFFERS)]
    until_gpus(cluster, 8)


def test_a_job_that_its_user_labels_while_a_round_writes_is_started_with_the_label(cluster, team, settings):
    cluster.apply(job(team, "a"))
    plan = plan_of(settings)
    label = lambda: cluster.kubectl("label", "job", "a", "-n", team, "mine=yes")  # noqa: E731
    assert KubernetesWriter(settings, api=after_listing(open_api(settings), label)).apply(plan).failed == []
    after = cluster.get("job", "a", "-n", team)
    assert (after["spec"]["suspend"], after["metadata"]["labels"]["mine"]) == (False, "yes")


def test_what_a_deployment_takes_while_a_plan_is_made_is_not_given_again(cluster, team, settings):
    """60 kW: six jobs are planned, and before they are started a Deployment takes 16 GPUs."""
    cluster.apply(*(job(team, f"job{number}") for number in range(6)))
    plan = plan_of(settings)
    pods, labels = job(team, "x")["spec"]["template"]["spec"] | {"restartPolicy": "Always"}, {"app": "serve"}
    template = {"metadata": {"labels": labels}, "spec": pods}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": "serve", "namespace": team}
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    try:
        until_gpus(cluster, 16)
        with Watch(cluster) as watch:
            KubernetesWriter(settings).apply(plan)
            rig.until("nothing waits for a node", lambda: len(watch.samples) > 10)
        assert max(gpus for _, gpus in watch.samples) * WATTS <= 60_000
        queue = KubernetesReader(SITE, settings).read()
        assert sum(one.gpus for one in queue.jobs if one.state == "running") == 16
    finally:
        cluster.kubectl("delete", "deployment", "serve", "-n", team)


def test_a_watch_that_the_server_has_forgotten_lists_again(cluster, team, settings):
    cluster.apply(job(team, "a"))
    cluster.restart("kube-apiserver")  # its cache of changes begins here
    with pytest.raises(Gone):
        list(open_api(settings).watch_jobs("1", 1.0))
    api = open_api(settings)
    listing = api.jobs
    api.jobs = lambda: (listing()[0], "1")
    watching = msgspec.structs.replace(settings, settle_s=1.0)
    done = KubernetesWriter(watching, api=api).apply(plan_of(settings))
    assert done.failed == []
    assert len(done.commands) == 1


def test_two_namespaces_need_role_bindings_in_them_alone(cluster, team, settings, tmp_path):
    """Jobs are listed, watched and written in the namespaces of the settings; nodes and pods everywhere."""
    other, who = f"{team}-b", "--serviceaccount=powerhall:scoped"
    cluster.kubectl("create", "namespace", other)
    cluster.kubectl("create", "serviceaccount", "scoped", "-n", "powerhall")
    for place in (team, other):
        jobs = "--clusterrole=powerhall-optimizer-jobs"
        cluster.kubectl("create", "rolebinding", "scoped", jobs, who, "-n", place)
    cluster.kubectl("create", "clusterrolebinding", "scoped", "--clusterrole=powerhall-optimizer-cluster", who)
    cluster.kubectl("create", "rolebinding", "scoped", "--role=powerhall-optimizer-lease", who, "-n", "powerhall")
    token = tmp_path / "scoped"
    token.touch(0o600)
    token.write_text(cluster.token_of("scoped", "powerhall"))
    scoped = {"namespaces": (team, other), "settle_s": 1.0, "token_file": str(token)}
    mine = msgspec.structs.replace(settings, **scoped)
    cluster.apply(job(team, "a"), job(other, "b"))
    try:
        write(mine)
        until_gpus(cluster, 16)
        with pytest.raises(ConfigError, match=r"list jobs: 403 .*the service account needs the role"):
            KubernetesWriter(msgspec.structs.replace(mine, namespaces=())).apply(plan_of(mine))
    finally:
        cluster.kubectl("delete", "namespace", other)
        cluster.kubectl("delete", "clusterrolebinding", "scoped")
        cluster.kubectl("delete", "rolebinding,serviceaccount", "scoped", "-n", "powerhall")


def test_a_tenant_that_forges_what_powerhall_writes_counts_at_its_worst(cluster, team, settings):
    forged = {"powerhall.io/mode": "eco", "powerhall.io/wrote": "suspend=false;queue=", "powerhall.io/done": "7000"}
    cluster.apply(job(team, "forged", notes=forged, suspend=False), job(team, "honest", suspend=False))
    until_gpus(cluster, 16)
    modes = lambda: {one.job_id: one.mode for one in KubernetesReader(SITE, settings).read().jobs}  # noqa: E731
    assert set(modes().values()) == {"fast"}
    plan = plan_of(settings)
    slow = [
        msgspec.structs.replace(one, mode="eco", gpu_power_w=1000.0)
        for one in plan.assignments
        if one.job_id == f"{team}/honest"
    ]
    write(settings, msgspec.structs.replace(plan, assignments=tuple(slow)))
    assert modes() == {f"{team}/forged": "fast", f"{team}/honest": "eco"}


def test_a_job_that_its_user_suspends_takes_no_power_of_later_plans(cluster, team, settings):
    cluster.apply(*(job(team, f"job{number}") for number in range(3)))
    write(settings, budget_kw=20)
    until_gpus(cluster, 16)
    cluster.kubectl("patch", "job", "job0", "-n", team, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    until_gpus(cluster, 8)
    write(settings, budget_kw=20)
    rig.until("the third has its place", lambda: set(landed(cluster, team)) == {"job1", "job2"})


def test_a_wrong_token_is_called_one(settings, tmp_path):
    token = tmp_path / "expired"
    token.touch(0o600)
    token.write_text("no.token.atall")
    with pytest.raises(ConfigError, match=r"401 .*the token is wrong or has expired"):
        plan_of(msgspec.structs.replace(settings, token_file=str(token)))
