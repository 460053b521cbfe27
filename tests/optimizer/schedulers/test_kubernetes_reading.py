"""What is read of a small fake API server: jobs, nodes, pods, what tenants write."""

import pytest

from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from rigs.kubernetes_jobs import SITE, pod, submit

pytestmark = pytest.mark.rig


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


@pytest.mark.parametrize(
    ("spec", "gpus"),
    [
        ({"parallelism": 8, "completions": 2}, 16),
        ({"parallelism": 2, "completions": 10}, 16),
        ({"parallelism": 2}, 16),
    ],
)
def test_gpus_of_a_job_are_those_it_may_hold_at_once(server, settings, spec, gpus):
    submit(server, "a", gpus=8)
    server.change("jobs", "a", "team-a", {"spec": spec})
    (read,) = KubernetesReader(SITE, settings).read().jobs
    assert read.gpus == gpus


@pytest.mark.parametrize("gpus", ["1e999999999", "1E", "NaN", "-8", "0x8"])
def test_a_quantity_that_is_none_leaves_its_own_job_out(server, settings, gpus):
    submit(server, "evil", gpus=gpus)
    submit(server, "good")
    queue = KubernetesReader(SITE, settings).read()
    assert [one.job_id for one in queue.jobs] == ["team-a/good"]
    assert "must" in queue.left_out["team-a/evil"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("6h30m", 23400), ("90m", 5400), ("1h0m10s", 3610), ("PT6H", 21600), ("1.5h", 5400)]
)
def test_durations_may_be_written_as_kubernetes_does(server, settings, text, seconds):
    submit(server, "a", duration=text)
    assert [one.duration_s for one in KubernetesReader(SITE, settings).read().jobs] == [seconds]


@pytest.mark.parametrize(
    ("note", "value"),
    [
        ("duration", "0"),
        ("duration", "1e308 h"),
        ("duration", "999999999999"),
        ("deadline", "1e308"),
        ("earliest", "-1e300"),
        ("deadline", "next week"),
    ],
)
def test_a_wrong_annotation_leaves_its_own_job_out(server, settings, note, value):
    submit(server, "evil", annotations={f"powerhall.io/{note}": value})
    submit(server, "good")
    queue = KubernetesReader(SITE, settings).read()
    assert [one.job_id for one in queue.jobs] == ["team-a/good"]
    assert f"powerhall.io/{note}" in queue.left_out["team-a/evil"]


def test_whatever_holds_gpus_is_counted_where_it_runs(server, settings):
    pod(server, "serve-1", "gn01")
    pod(server, "serve-2", "gn02", gpus=8)
    pod(server, "old", "gn03", phase="Succeeded")
    pod(server, "cpu", "gn03", gpus=0)
    submit(server, "train", pods=2, suspend=False)
    server.change("jobs", "train", "team-a", {"status": {"startTime": "2026-01-01T01:00:00Z"}})
    for number in (5, 6):
        pod(server, f"train-{number}", f"gn{number:02d}", gpus=8, owner=("Job", "train"))
        moved = server.get("pods", f"train-{number}", "team-b")
        moved["metadata"]["namespace"] = "team-a"
        server.put("pods", moved)
    jobs = {one.job_id: one for one in KubernetesReader(SITE, settings).read().jobs}
    serve, train = jobs["Deployment:team-b/serve"], jobs["team-a/train"]
    assert (serve.state, serve.hall, serve.nodes, serve.gpus_on_nodes) == ("running", None, "gn[01-02]", (4, 8))
    assert (train.hall, train.nodes, train.gpus) == ("hall1", "gn[05-06]", 16)
