"""What the API server refuses, changes or forgets while a plan is written: rights, leaders, watches; a fake server."""

import threading
import time

import msgspec
import pytest

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall_optimizer.schedulers.kubernetes.api_client import open_api
from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader
from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter
from rigs.kubernetes_jobs import SITE, job, plan_of, submit

pytestmark = pytest.mark.rig


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
    server.before_patch = lambda _: timer.start()  # of the one patch
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
    (failed,) = KubernetesWriter(settings).apply(plan).failed
    assert "403 Forbidden jobs is forbidden: cannot patch: the service account needs the role" in failed.error
    server.forbidden = {("list", "jobs")}
    with pytest.raises(ConfigError, match=r"403 Forbidden .*: the service account needs the role"):
        KubernetesWriter(settings).apply(plan)
    dead = msgspec.structs.replace(settings, server="http://127.0.0.1:21799", timeout_s=2.0)
    with pytest.raises(Retryable, match="kubernetes: list pods"):
        KubernetesReader(SITE, dead).read()


def test_an_event_that_is_denied_ends_nothing(server, settings):
    submit(server, "a")
    submit(server, "b")
    server.forbidden.add(("create", "events"))
    done = KubernetesWriter(settings).apply(plan_of(settings))
    assert [c.text for c in done.failed] == ["event of team-a/a", "event of team-a/b"]
    assert not job(server, "a")["spec"]["suspend"]
    assert not job(server, "b")["spec"]["suspend"]


def test_an_older_plan_and_one_of_another_site_are_refused(server, settings):
    submit(server, "a")
    writer = KubernetesWriter(settings)
    newer = plan_of(settings)
    older = msgspec.structs.replace(
        newer, snapshot=msgspec.structs.replace(newer.snapshot, taken_s=newer.snapshot.taken_s - 60)
    )
    other = msgspec.structs.replace(SITE, name="elsewhere")
    elsewhere = msgspec.structs.replace(newer, snapshot=msgspec.structs.replace(newer.snapshot, site=other))
    assert writer.apply(newer).failed == []
    with pytest.raises(Rejected, match="60 s older than"):
        writer.apply(older)
    with pytest.raises(Rejected, match="is of site elsewhere"):
        writer.apply(elsewhere)
