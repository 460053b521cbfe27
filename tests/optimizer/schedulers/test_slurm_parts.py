"""Slurm's JSON in both shapes, marks on jobs, curtailments and power saving, without a cluster."""

import json
import time
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.jobs.model import Job
from powerhall.plan.plan import ZonePlan
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall_optimizer.schedulers.base import WriteReport
from powerhall_optimizer.schedulers.skip_reasons import Skip
from powerhall_optimizer.schedulers.slurm.apply import restored, write_changes
from powerhall_optimizer.schedulers.slurm.commands import SlurmTool
from powerhall_optimizer.schedulers.slurm.desired_state import Change, DesiredJob, decide
from powerhall_optimizer.schedulers.slurm.ownership_mark import FIELDS, OwnershipMark, parse_mark
from powerhall_optimizer.schedulers.slurm.power_saving import power_changes
from powerhall_optimizer.schedulers.slurm.records import NodeRecord, parse_nodes, parse_queue, tres_gpus
from powerhall_optimizer.schedulers.slurm.reservations import Curtailment, changes, parse_reservations, wanted
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.writer import is_stale
from rigs.plans import greedy_plan, small_site

NODES = tuple(f"gn{n:02d}" for n in range(1, 13))
SETTINGS = SlurmSettings()


@pytest.fixture(params=["22.05", "24.11"])
def version(request):
    return request.param


@pytest.fixture
def samples(root, version):
    folder = root / "tests" / "optimizer" / "schedulers" / "data"
    return [(folder / f"{name}-{version}.json").read_text() for name in ("squeue", "sinfo")]


def test_both_shapes_of_squeue_read_the_same(samples):
    jobs = {job.job_id: job for job in parse_queue(samples[0])}
    assert set(jobs) == {"1", "2", "3", "4_1", "4_2", "4_3", "4_4", "4_5"}
    runs, waits, held, task = jobs["1"], jobs["2"], jobs["3"], jobs["4_2"]
    assert (runs.state, runs.gpus, runs.gpu_type, runs.nodes) == ("RUNNING", 16, "h200", "gn[01-02]")
    assert (waits.gpus, waits.required_nodes, waits.time_limit_s) == (16, "gn[03-04]", 600)
    assert waits.licences == {"kw": 30, "cool_kw": 1}
    assert (waits.admin_comment, waits.comment) == ("powerhall:a=b;c=d", "powerhall: waits until 14:20")
    assert waits.begin_s == 1795477800
    assert (held.is_held, held.reason, held.gpus) == (True, "JobHeldAdmin", 8)
    assert (task.gpus, task.begin_s, task.admin_comment) == (4, 1795477800, "x")
    assert not any(job.is_held for job in jobs.values() if job is not held)


def test_both_shapes_of_sinfo_read_the_same(samples):
    nodes = {node.name: node.states for node in parse_nodes(samples[1])}
    assert set(nodes) == {f"gn{n:02d}" for n in range(1, 9)}
    assert "MIXED" in nodes["gn01"]
    assert "IDLE" in nodes["gn05"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"jobs": 3}', "null"])
def test_an_invalid_squeue_answer_is_refused_in_one_line(text):
    with pytest.raises(Rejected, match=r"squeue --json: .*Slurm 21\.08"):
        parse_queue(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["set", "number", "infinite", "x"]), inner),
    )
)
def test_no_field_of_any_shape_crashes_the_parser(value):
    keys = ["job_state", "priority", "time_limit", "licenses", "tres_per_node", "array_job_id", "gres_detail", "tasks"]
    for key in keys:
        row = {"job_id": 1, "job_state": "PENDING", key: value}
        assert all(record.job_id for record in parse_queue(json.dumps({"jobs": [row]})))


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gres:gpu:8", 8),
        ("gres/gpu:8", 8),
        ("gres/gpu=8", 8),
        ("gres:gpu:h200:4", 4),
        ("cpu=2,mem=2M,gres/gpu=16,gres/gpu:h200=16", 16),
        ("gres:gpu", 1),
        ("gres/gpumem:80", 0),
        ("gres:nic:2", 0),
        ("gres:gpu:h100:2,gres:gpu:h200:4", 6),
        ("", 0),
    ],
)
def test_gpus_of_a_tres_text(text, gpus):
    assert tres_gpus(text)[0] == gpus


VALUES = st.dictionaries(
    st.sampled_from(FIELDS), st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=";=|\"'\\"))
)


@given(VALUES, VALUES, st.booleans(), st.integers(0, 2**31), st.integers(0, 9), st.sampled_from(["", "site note | x"]))
def test_a_mark_reads_back_as_it_was_written(values, old, pending, begin_s, restarts, rest):
    mark = OwnershipMark(values, old if pending else {}, pending, begin_s, restarts, "eco", 500, rest, charge=7)
    assert parse_mark(mark.encode()) == mark


@pytest.mark.parametrize("text", ["", "by hand", "powerhall", " powerhall:start=1"])
def test_other_comments_are_no_marks(text):
    assert parse_mark(text) is None


def record(**fields):
    text = json.dumps(
        {
            "jobs": [
                {"job_id": 5, "job_state": "PENDING", "priority": 10, "node_count": 1, "tres_per_node": "gres:gpu:8"}
            ]
        }
    )
    return replace(parse_queue(text)[0], **fields)


def test_a_run_that_was_killed_between_mark_and_writes_owns_old_and_new_values():
    mark = OwnershipMark({"start": "2000"}, {"start": "0"}, pending=True)
    for begin_s in (0, 2000):  # before and after the write
        change = decide(
            record(begin_s=begin_s, admin_comment=mark.encode()),
            DesiredJob("5", {"start": "3000"}, "why"),
            SETTINGS,
            1000,
        )
        assert isinstance(change, Change)
        assert change.values == {"start": "3000"}
    change = decide(
        record(begin_s=2500, admin_comment=mark.encode()), DesiredJob("5", {"start": "3000"}, "why"), SETTINGS, 1000
    )
    assert isinstance(change, Change)
    assert change.values == {}
    assert [note.code for note in change.notes] == [Skip.FIELD_CHANGED]


def test_a_job_that_is_given_back_has_the_charge_of_its_submission_again():
    change = decide(record(licences={"kw": 10}), DesiredJob("5", {"lic": "6"}, "why"), SETTINGS, 1000)
    assert isinstance(change, Change)
    written = record(licences={"kw": 6}, admin_comment=change.mark.encode())
    assert restored(written, SETTINGS, 1000).values == {"lic": "10"}
    again = decide(written, DesiredJob("5", {"lic": "8"}, "why"), SETTINGS, 1000)
    assert isinstance(again, Change)
    assert again.mark.charge == 10
    enlarged = replace(written, licences={"kw": 20})  # by its user since
    assert restored(enlarged, SETTINGS, 1000).values == {}


def test_a_lower_charge_of_a_plan_that_nobody_renews_is_given_back_where_no_nodes_are_asked_for():
    settings = SlurmSettings(pin="none", round_s=300)
    waits = record(licences={"kw": 10})
    change = decide(waits, DesiredJob("5", {"lic": "6"}, "why", at_s=1000), settings, 1000)
    assert isinstance(change, Change)
    written = replace(waits, licences={"kw": 6}, admin_comment=change.mark.encode(), comment=change.comment)
    assert is_stale(written, settings, 1601)
    assert not is_stale(written, settings, 1600)
    again = decide(written, DesiredJob("5", {"lic": "6"}, "why", at_s=1299), settings, 1299)
    assert isinstance(again, Change)
    assert again.is_empty  # within a round
    renewed = decide(written, DesiredJob("5", {"lic": "6"}, "why", at_s=1300), settings, 1300)
    assert isinstance(renewed, Change)
    assert (renewed.values, renewed.mark.at_s) == ({}, 1300)
    whole = decide(waits, DesiredJob("5", {"lic": "10"}, "why", at_s=1000), settings, 1000)
    assert isinstance(whole, Change)
    assert not is_stale(replace(waits, admin_comment=whole.mark.encode()), settings, 9000)


def test_an_array_that_is_too_long_to_list_is_one_job():
    rows = [{"job_id": 7, "array_job_id": 7, "array_task_string": "1-9,...", "job_state": "PENDING"}]
    assert [r.job_id for r in parse_queue(json.dumps({"jobs": rows}))] == ["7"]
    rows[0]["array_task_string"] = "1-2000000"
    assert [r.job_id for r in parse_queue(json.dumps({"jobs": rows}))] == ["7"]
    rows[0]["array_task_string"] = "0-8:4%2"
    assert [r.job_id for r in parse_queue(json.dumps({"jobs": rows}))] == ["7_0", "7_4", "7_8"]


def plan(budget_kw, jobs=(), idle_power_w=0.0, start_s=6000):
    site = small_site(NODES, idle_power_w=idle_power_w)
    return greedy_plan(site, jobs, start_s=start_s, slot_s=60, budget_w=[kw * 1000 for kw in budget_kw])


def test_a_curtailment_reserves_what_may_not_be_used():
    made = plan([60] * 5 + [30] * 10 + [60] * 5)
    assert wanted(made, SETTINGS, 60, 6000) == [Curtailment(6300, 6900, 30)]
    assert wanted(made, SETTINGS, 60, 6900) == []
    assert wanted(made, SETTINGS, 80, 6000) == [
        Curtailment(6000, 6300, 20),
        Curtailment(6300, 6900, 50),
        Curtailment(6900, 7200, 20),
    ]


def test_room_beside_the_plan_is_scaled_by_losses_and_cooling():
    made = plan([60] * 5, [Job("1", 16, 600.0)])
    site = ZonePlan("plant", tuple(w * 13 // 10 for w in made.zones[1].planned_w), (60_000,) * 5)
    made = msgspec.structs.replace(made, zones=(site, made.zones[1]))
    assert wanted(made, SETTINGS, 60, 6000) == [Curtailment(6000, 6300, 60 - 20 - 26)]  # (60 - 26) kW / 1.3 = 26


def test_a_zone_that_is_not_there_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"slurm.zone: 'hall9': must be one of plant, hall1"):
        wanted(plan([60]), SlurmSettings(zone="hall9"), 60, 6000)


def test_reservations_are_made_changed_and_deleted_only_where_they_differ():
    want = [Curtailment(6300, 6900, 30)]
    tighten, loosen = changes(want, [], "kw", 6000)
    assert loosen == []
    assert tighten == [
        "create reservation ReservationName=powerhall_kw_6300 StartTime=1970-01-01T01:45:00 "
        "EndTime=1970-01-01T01:55:00 Licenses=kw:30 Flags=LICENSE_ONLY Users=root"
    ]
    have = [Curtailment(6300, 6900, 30, "powerhall_kw_6300")]
    assert changes(want, have, "kw", 6000) == ([], [])
    assert changes([Curtailment(6360, 6900, 30)], have, "kw", 6400) == ([], [])  # begun already: its start is history
    less = changes([Curtailment(6300, 6900, 10)], have, "kw", 6000)
    assert less == (
        [],
        ["update reservation ReservationName=powerhall_kw_6300 EndTime=1970-01-01T01:55:00 Licenses=kw:10"],
    )
    assert changes([], have, "kw", 6000) == ([], ["delete ReservationName=powerhall_kw_6300"])


def test_only_own_reservations_are_read():
    text = (
        "ReservationName=powerhall_kw_6300 StartTime=1970-01-01T01:45:00 EndTime=1970-01-01T01:55:00 Licenses=kw:30\n"
        "ReservationName=maintenance StartTime=1970-01-01T01:45:00 EndTime=1970-01-01T01:55:00 Licenses=kw:10\n"
    )
    assert parse_reservations(text, "kw") == [Curtailment(6300, 6900, 30, "powerhall_kw_6300")]
    assert parse_reservations("No reservations in the system\n", "kw") == []


def test_idle_nodes_without_planned_work_are_powered_down_and_up_in_time():
    made = plan([60] * 60, [Job("1", 16, 600.0), Job("2", 8, 600.0, earliest_s=6000 + 1800.0)])
    settings = SlurmSettings(power_save_s=1200, resume_lead_s=300)
    nodes = [NodeRecord(name, frozenset({"IDLE"})) for name in NODES]
    used = {job.job_id: job.placements[0].nodes for job in made.assignments}
    assert used == {"1": "gn[01-02]", "2": "gn01"}
    assert power_changes(made, nodes, settings, 6000) == [("power_down", NODES[2:])]
    off = [NodeRecord(name, frozenset({"IDLE", "POWERED_DOWN"})) for name in NODES]
    assert power_changes(made, off, settings, 6600) == []
    assert power_changes(made, off, settings, 7600) == [("power_up", ("gn01",))]
    assert power_changes(made, nodes, SETTINGS, 6000) == []
    drained = [NodeRecord(name, frozenset({"IDLE", "DRAIN"})) for name in NODES]
    assert power_changes(made, drained, settings, 6000) == []


def test_ten_thousand_jobs_are_read_fast(root):
    row = json.loads((root / "tests/optimizer/schedulers/data/squeue-24.11.json").read_text())["jobs"][1]
    text = json.dumps({"jobs": [row | {"job_id": n} for n in range(1, 10_001)]})
    began = time.process_time()
    assert len(parse_queue(text)) == 10_000
    assert time.process_time() - began < 5


def test_nothing_in_a_plan_or_a_comment_can_become_a_command_of_its_own():
    text = 'quote " and\nscancel 1'
    change = decide(
        record(admin_comment=text), DesiredJob("5", {"start": "3000"}, text, mode="a b;c=1\nx"), SETTINGS, 1000
    )
    assert isinstance(change, Change)
    assert change.comment == "powerhall: quote   and scancel 1"
    assert change.mark.rest == "quote   and scancel 1"
    report = WriteReport("slurm", "", dry_run=True)
    for hall in ("hall1\nscancel 1", "hall1;hold=1"):  # ; ends a field of the mark
        evil = replace(change, values={"feat": hall})
        with pytest.raises(Rejected, match=r"job 5: feat: .*must be one word"):
            write_changes(SlurmTool(1), [evil], SETTINGS, lambda: 1000.0, report)


@pytest.mark.parametrize("word", ["NaN", "-Infinity", "nan", "inf"])
def test_a_number_that_is_none_stops_no_reading(word):
    row = '{"job_id": 7, "job_state": ["RUNNING"], "billable_tres": %s, "nodes": "gn01", "comment": "a: NaN, b"}'
    (record,) = parse_queue(f'{{"jobs": [{row % word}]}}')
    assert (record.job_id, record.nodes) == ("7", "gn01")


def test_what_users_filter_by_their_environment_is_seen_all_the_same(tmp_path, monkeypatch):
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("SQUEUE_STATES", "SQUEUE_PARTITION", "SINFO_FORMAT", "SLURM_CLUSTERS", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    said = dict(line.split("=", 1) for line in SlurmTool(5).ask("squeue").splitlines() if "=" in line)
    assert not any(name.startswith(("SQUEUE_", "SINFO_", "SLURM_CLUSTERS")) for name in said)
    assert (said["SLURM_CONF"], said["TZ"], said["SLURM_TIME_FORMAT"]) == ("x", "UTC", "standard")
    assert said["SLURM_BITSTR_LEN"] == "0"  # arrays are listed in full, or one pin would be that of all tasks
