"""The lease command beside what it cannot know: ends of plans, falls of budgets, older plans and other sites."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot, snapshot_hash
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.leases.newest_plan import note_newest
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.round.publish import publish
from rigs.confirmed import confirmed_ledger
from rigs.lease_desk import KEY, with_budget
from rigs.leased_plan import SITE


def test_leases_end_with_the_horizon_whatever_is_asked_for(desk, tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    now_s = int(time.time()) // 60 * 60
    jobs = tuple(Job(f"j{i}", 8, 7200.0) for i in range(20))
    snapshot = Snapshot(now_s, now_s, 60, 10, read_site(tmp_path / "site.toml")[0], jobs)
    desk.put(make_plan(snapshot, RoundSettings(), 1.0, created_s=now_s, log=Log(quiet=True)))
    for span in ("15min", "100d", "1 h"):
        figures = desk.lease("--for", span)
        assert figures["expires_s"] <= now_s + 600
        assert "the plan ends then" in figures["note"]
        assert max(lease.expires_s for lease in desk.leases().values()) < now_s + 600
        assert desk.held_w(now_s + 600) == sum(desk.nodes.values())


def test_an_hour_is_the_longest(desk):
    figures = desk.lease("--for", "100d")
    assert figures["expires_s"] <= time.time() + 3600
    assert "longest lease" in figures["note"]


@pytest.mark.parametrize("span", ["0 s", "-5 min", "-3s", "1e308 d", "15", "nan s", "soon", "0.01 s"])
def test_a_span_without_meaning_is_refused_and_leaves_nothing(desk, span):
    assert "lease: --for:" in desk.lease("--for", span, code=1)
    assert not desk.ledger.exists()


@pytest.mark.parametrize("fall_s", [300, 600, 900])
def test_leases_end_at_a_fall_of_the_budget_that_leaves_no_room(desk, monkeypatch, fall_s):
    monkeypatch.setattr("powerhall_optimizer.commands.lease.checked_plan", lambda *_: plan)
    confirmed_ledger(desk.ledger, desk.nodes)
    safe_w = sum(desk.nodes.values())
    plan = with_budget(desk.plan, (0, 1e6), (fall_s, 2.0 * safe_w), (fall_s + 300, 1.5 * safe_w))
    figures = desk.lease("--for", "30min")
    assert figures["ended_early"] > 0
    at_s = plan.snapshot.start_s + fall_s
    if time.time() < at_s - 61:
        assert desk.held_w(time.time()) > 2.0 * safe_w
    assert desk.held_w(at_s) <= 2.0 * safe_w
    assert desk.held_w(at_s + 300) <= 1.5 * safe_w
    assert desk.held_w(at_s) > safe_w, "what fits the lower budget goes on through the fall"


@pytest.mark.parametrize("zone", ["", "Asia/Kolkata"])
def test_a_cut_without_notice_lowers_the_caps_at_once(desk, plan, tmp_path, zone):
    desk.put(msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(plan.snapshot, timezone=zone)))
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.lease()
    before_w, safe_w = desk.held_w(time.time()), sum(desk.nodes.values())
    limit_w = 1.3 * safe_w
    start = datetime.fromtimestamp(time.time() - 1, ZoneInfo(zone or "UTC")).replace(tzinfo=None).isoformat()
    event = {"start": start, "duration": "30 min", "power_limit": f"{limit_w:.0f} W", "event_id": "e"}
    (tmp_path / "events.json").write_text(json.dumps([event]))
    desk.lease("--events", tmp_path / "events.json")
    assert before_w > limit_w >= desk.held_w(time.time())


def test_an_older_plan_and_one_of_another_site_are_refused_and_change_nothing(desk, plan):
    def aged(seconds, **fields):
        return msgspec.structs.replace(plan, created_s=plan.created_s + seconds, **fields)

    desk.put(aged(10))
    desk.lease()
    before = desk.ledger.read_bytes()
    desk.put(aged(9))
    assert "is older than plan" in desk.lease(code=1)
    desk.put(aged(86_400))
    assert "in the future" in desk.lease(code=1)
    site = msgspec.structs.replace(plan.snapshot.site, name="ams")
    snapshot = msgspec.structs.replace(plan.snapshot, site=site)
    other = msgspec.structs.replace(aged(11), snapshot=snapshot, plan_id=snapshot_hash(snapshot))
    desk.monkeypatch.setattr("powerhall_optimizer.commands.lease.checked_plan", lambda *_: other)
    assert "one ledger a site" in desk.lease(code=1) or "a ledger of its own" in desk.log
    assert desk.ledger.read_bytes() == before
    assert not list(desk.folder.glob("ledger.json.damaged*"))


def test_of_two_plans_of_one_second_the_later_one_stays(desk, plan):
    one, two = (msgspec.structs.replace(plan, plan_id=plan_id) for plan_id in ("1" * 64, "2" * 64))
    in_force = iter([one, two, two, one])
    desk.monkeypatch.setattr("powerhall_optimizer.commands.lease.checked_plan", lambda *_: next(in_force))
    for _ in range(3):
        desk.lease()
    assert "is older than plan" in desk.lease(code=1)


@pytest.mark.parametrize("ledger", ["never written", "damaged"])
def test_a_plan_that_took_the_place_of_a_newer_one_of_a_round_is_refused_whatever_the_ledger_knows(desk, plan, ledger):
    path = desk.folder / "plan.json"
    older, newer = (msgspec.structs.replace(plan, created_s=plan.created_s + more) for more in (0, 10))
    (desk.folder / "site.toml").write_text(SITE.replace('"phx"', '"elsewhere"'))
    now_s = int(time.time()) // 60 * 60
    snapshot = Snapshot(now_s, now_s, 60, 10, read_site(desk.folder / "site.toml")[0], (Job("j", 8, 7200.0),))
    other = make_plan(snapshot, RoundSettings(), 1.0, created_s=now_s + 20, log=Log(quiet=True))
    publish(newer, None, path)
    if ledger == "damaged":
        desk.ledger.write_bytes(b"\xff")
    desk.put(older)
    assert "which the last round wrote there" in desk.lease(code=1)
    desk.put(other)
    assert "'elsewhere'" in desk.lease(code=1)
    assert not [*desk.folder.glob("ledger.json.damaged-*")], "nothing is begun for a site of others"
    desk.put(newer)
    assert desk.lease()["leases"] > 0


def _large(note):
    note.touch()
    os.truncate(note, 2 << 30)


def _note(**fields):
    whole = {"site": "phx", "plan_id": "1" * 64, "created_s": 1, "start_s": 1} | fields
    return lambda note: note.write_text(json.dumps(whole))


NOTES = {
    "empty": lambda note: note.touch(),
    "not UTF-8": lambda note: note.write_bytes(b"\xff"),
    "deep": lambda note: note.write_bytes(b"[" * 1000),
    "no fields": lambda note: note.write_bytes(b"{}"),
    "cut": lambda note: note.write_bytes(b'{"site": "phx"}'),
    "endless": _large,
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "loop": lambda note: note.symlink_to(note),
    "dangling": lambda note: note.symlink_to("absent"),
    "a time of 1e36": _note(created_s=1e36),
    "a time of 1e17": _note(created_s=10**17),
    "a time below 0": _note(created_s=-1),
    "no site": _note(site=""),
}


@pytest.mark.parametrize("name", ["plan.json.newest", "other.json.newest"])
@pytest.mark.parametrize("kind", NOTES)
def test_a_damaged_note_of_the_newest_plan_is_told_and_set_aside_and_stops_no_lease(desk, plan, kind, name):
    note = desk.folder / name
    NOTES[kind](note)
    trial = desk.lease("--dry-run")
    assert f"{name}: damaged, and does not count: " in trial["note"]
    figures = desk.lease()
    assert figures["leases"] > 0
    assert f"{name}: damaged and kept as {name}.damaged-" in figures["note"]
    assert desk.log.count("event=lease_plan") == 1
    assert not os.path.lexists(note)
    assert sum(found.name.startswith(f"{name}.damaged-") for found in desk.folder.iterdir()) == 1
    desk.lease()
    assert "event=lease_plan" not in desk.log


@pytest.mark.parametrize("where", ["beside it", "in the store", "only in the store, with another ledger"])
def test_a_plan_older_than_one_of_another_name_is_refused_before_any_lease_of_that(desk, plan, where):
    older, newer = (_made(plan, more_s) for more_s in (0, 20))
    desk.monkeypatch.setattr("powerhall_optimizer.commands.lease.checked_plan", lambda *_: in_force)
    new = desk.folder / "plan-new.json"
    if where == "beside it":
        publish(newer, None, new)
    else:
        store = open_store(desk.url)
        publish(newer, store, None)
        store.close()
    if "ledger" in where:
        in_force = newer
        desk.lease()
        desk.ledger = desk.folder / "ledger2.json"
    before = [*desk.folder.glob("ledger*")], desk.leases()
    in_force = older
    assert f"is older than plan {newer.plan_id[:12]}, which the last round wrote" in desk.lease(code=1)
    assert ([*desk.folder.glob("ledger*")], desk.leases()) == before, "nothing is begun or granted"
    in_force = newer
    assert desk.lease()["leases"] > 0


def test_a_newer_plan_of_another_site_or_of_a_time_to_come_refuses_none(desk, plan):
    s = plan.snapshot
    site = msgspec.structs.replace(s.site, name="ams")
    elsewhere = msgspec.structs.replace(_made(plan, 20), snapshot=msgspec.structs.replace(s, site=site))
    note_newest(elsewhere, desk.folder / "plan.ams.json")
    note_newest(_made(plan, 86_400), desk.folder / "ahead.json")
    store = open_store(desk.url)
    for at_s, name in ((20, "ams"), (86_400, s.site.name)):
        point = Point("plan", {"site": name}, {"plan_id": "1" * 64, "value": 1.0}, (s.taken_s + at_s) * 1000)
        store.write(encode(point))
    store.close()
    figures = desk.lease()
    assert figures["leases"] > 0
    assert "ahead.json.newest: is of a time to come" in figures["note"]


def _made(plan, more_s):
    """The plan as a round would have made it so much later."""
    s = plan.snapshot
    snapshot = msgspec.structs.replace(s, taken_s=s.taken_s + more_s)
    fields = {"created_s": plan.created_s + more_s, "plan_id": snapshot_hash(snapshot)}
    return msgspec.structs.replace(plan, snapshot=snapshot, **fields)


def test_a_plan_that_was_made_under_a_clock_ahead_locks_no_later_one_out(desk, plan):
    publish(msgspec.structs.replace(plan, created_s=plan.created_s + 7200), None, desk.folder / "plan.json")
    desk.put(plan)
    assert desk.lease()["leases"] > 0


def test_protected_jobs_get_their_leases_before_weight(plan):
    """As many caps as fit go to nodes of protected jobs first, and no running node is left without a lease."""
    from powerhall_optimizer.leases.budgets import lease_budgets
    from powerhall_optimizer.leases.caps import cap_requests, grant_leases

    s = plan.snapshot
    now_s, until_s = s.start_s + 1.0, s.start_s + 901.0
    wanted = cap_requests(plan, now_s, until_s)
    jobs = {job.job_id: job for job in s.jobs}
    assert any(request.is_protected for request in wanted)
    assert {job.preemptible for job in jobs.values()} == {True, False}
    leases = grant_leases(
        plan,
        wanted,
        Ledger(safe_caps_w(s.site)),
        lease_budgets(plan, now_s, until_s),
        site_key=KEY,
        now_s=now_s,
        until_s=until_s,
    )
    caps = {lease.node: lease.node_cap_w for lease, _ in leases}
    assert {request.node for request in wanted} == caps.keys()
    assert all(caps[request.node] == request.cap_w for request in wanted if request.is_protected)


def test_the_command_ends_with_one_line_and_code_1_as_a_program(desk):
    program = [sys.executable, "-m", "powerhall_optimizer", "lease", "--plan", desk.folder / "plan.json"]
    program += ["--store", desk.url, "--ledger", desk.ledger, "--site-key", desk.folder / "site.key", "--for", "0s"]
    run = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (run.returncode, len(run.stderr.splitlines()), run.stdout) == (1, 1, "")
