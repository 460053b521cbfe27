"""A trace is put in order or left out job by job, with counts, and refused where nothing is left."""

import json

import pytest
from twin_jobs import START_S

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.inputs.snapshot import SiteFit
from powerhall_twin.cli import main
from powerhall_twin.jobs.trace import read_trace

OWN = """job_id,gpus,duration_s,submit_s
late,8,600,{late}
first,8,600,{first}
negative,8,-5,{first}
nan,8,nan,{first}
nothing,0,600,{first}
none,-8,600,{first}
twice,8,600,{first}
twice,8,700,{first}
huge,4000,600,{first}
east,8,600,2026-07-15T12:00:00+02:00
local,8,600,2026-07-15T10:00:00
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(OWN.format(late=START_S + 900, first=START_S), encoding="utf-8")
    return path


def read(path, site, form=None):
    fit = SiteFit(site)
    return read_trace(path, form, None, lambda job: fit.check(job, str(path)))


def test_wrong_jobs_are_left_out_with_counts_and_the_rest_is_in_order(own, site):
    trace = read(own, site)
    assert [job.job_id for job in trace.jobs] == ["first", "twice", "east", "local", "late"]
    assert {job.submit_s for job in trace.jobs if job.job_id in ("east", "local", "first")} == {START_S}
    notes = "\n".join(trace.notes)
    assert "2 jobs: gpus must be at least 1: nothing, none" in notes
    assert "negative" in notes
    assert "nan" in notes
    assert "1 jobs: job_id must be unique: twice" in notes
    assert "1 jobs that fit nowhere, the first:" in notes
    assert "huge" in notes
    assert "put in order: 1 jobs" in notes


@pytest.mark.parametrize(
    ("name", "text", "jobs", "words"),
    [
        (
            "sacct.txt",
            "JobIDRaw|Submit|Elapsed|AllocTRES|State\n1|2026-07-15T10:00:00|01:00:00|gres/gpu=8|COMPLETED\n"
            "2|2026-07-15T10:00:00|00:10:00||COMPLETED\n3|nonsense|00:10:00|gres/gpu=8|COMPLETED\n"
            "4|2026-07-15T10:00:00|00:10:00|gres/gpu=8|RUNNING\n",
            1,
            ("1 without a GPU", "1 with a time that is none", "1 that have not ended", "taken as UTC"),
        ),
        (
            "philly.csv",
            "timestamp,duration,num_gpus,gpu_time,cluster\n2026-07-15 10:00:00,-5,8,0,a\n"
            "2026-07-15 10:00:00,nan,8,0,a\n2026-07-15 10:00:00,60,0,0,a\n2026-07-15 10:00:00,60,8,0,a\n",
            1,
            ("1 without a GPU", "1 that never ran", "1 with a number or time that is none"),
        ),
        ("trace.swf", "; x\n1 0 0 100 8\n2 0 0 -1 8\n3 0 0 nan 8\n4 0\n", 1, ("never ran", "with text for a number")),
    ],
)
def test_every_format_counts_what_it_skips(tmp_path, site, name, text, jobs, words):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    trace = read(path, site)
    assert len(trace.jobs) == jobs
    notes = "\n".join(trace.notes)
    assert all(word in notes for word in words), notes


def test_a_trace_of_which_nothing_is_left_is_refused(tmp_path, site):
    path = tmp_path / "own.csv"
    path.write_text("job_id,gpus,duration_s\na,0,60\nb,8,-1\n", encoding="utf-8")
    with pytest.raises(Rejected, match="no job to replay: left out: 1 jobs"):
        read(path, site)


def test_a_replay_says_what_it_left_out_and_simulates_storage(own, demo_folder, tmp_path, capsys):
    for name in ("weather.csv", "prices.csv", "grid.csv"):
        (tmp_path / name).write_bytes((demo_folder / name).read_bytes())
    battery = '[[batteries]]\nname = "bess"\nenergy = "1 MWh"\ncharge_power = "1 MW"\ndischarge_power = "1 MW"\n'
    site = tmp_path / "site.toml"
    site.write_text((demo_folder / "site.toml").read_text(encoding="utf-8") + "\n" + battery, encoding="utf-8")
    out = tmp_path / "out"
    args = ["replay", "--site", str(site), "--jobs", str(own), "--hours", "1", "--policies", "fcfs", "--out", str(out)]
    assert main(args) == 0
    captured = capsys.readouterr()
    assert "put in order: 1 jobs" in captured.err
    results = json.loads((out / "results.json").read_text())
    notes = results["notes"]
    assert all(note in captured.err for note in notes)
    assert len(notes) >= 5
    assert set(results["policies"][0]["stored_mwh"]) == {"bess"}


def test_equal_faults_of_many_lines_are_one_note(tmp_path, site):
    rows = "".join(f"n{i},8,nan,{START_S}\n" for i in range(500))
    path = tmp_path / "many.csv"
    path.write_text(f"job_id,gpus,duration_s,submit_s\nok,8,600,{START_S}\n{rows}", encoding="utf-8")
    (note,) = read(path, site).notes
    assert note == "left out: 500 jobs: duration_s must be finite: n0, n1, n2"


def test_jobs_without_a_time_are_left_out_and_do_not_move_the_window(tmp_path, site):
    path = tmp_path / "own.csv"
    path.write_text(
        f"job_id,gpus,duration_s,submit_s,within\nok,8,600,{START_S},\nblock,16,600,{START_S},rack\nnone,8,600,,\n",
        encoding="utf-8",
    )
    trace = read(path, site)
    assert [job.job_id for job in trace.jobs] == ["ok", "block"]
    assert [job.within for job in trace.jobs] == [None, None]
    assert "left out: 1 jobs without a time of submission" in trace.notes
    assert "1 jobs ask for nodes or for blocks of nodes: the twin places them anywhere" in trace.notes
