"""Wrong input gives one line on stderr and exit code 1, and nothing is written."""

import json
import os

import pytest

from powerhall.jobs import write_jobs
from powerhall_optimizer.cli import main

START_S = 1_700_000_100
GOOD_JOBS = "job_id,gpus,duration_s,submit_s\na,8,3600,0\nb,16,7200,0\n"


@pytest.fixture
def attempt(tmp_path, capsys, site_text):
    """Run a round on texts; return (exit code, stderr) and make sure that a refusal leaves nothing behind."""

    def run(site=site_text, jobs=GOOD_JOBS, name="jobs.csv", extra=(), **files):
        (tmp_path / "site.toml").write_text(site)
        (tmp_path / name).write_text(jobs)
        for file, text in files.items():
            (tmp_path / file.replace("_csv", ".csv")).write_text(text)
        before = set(os.listdir(tmp_path))
        arguments = [
            "round",
            "--strict",
            "--quiet",
            "--site",
            str(tmp_path / "site.toml"),
            "--jobs",
            str(tmp_path / name),
        ]
        arguments += [
            "--start",
            str(START_S),
            "--horizon",
            "6h",
            "--seconds",
            "1",
            "--out",
            str(tmp_path / "plan.json"),
        ]
        code = main([*arguments, *extra])
        error = capsys.readouterr().err
        if code:
            assert error.count("\n") == 1, error
            assert "Traceback" not in error
            assert set(os.listdir(tmp_path)) - before <= {".plan.json.lock"}
        return code, error

    return run


def test_the_site_and_jobs_of_these_tests_are_good(attempt):
    assert attempt() == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "phx"', 'name = "phx"\ncolour = "red"', "colour"),
        ('power_limit = "330 kW"', 'power_limit = "-3 kW"', "site.power_limit: '-3 kW': must not be negative"),
        ('power_limit = "330 kW"', 'power_limit = "330 kVA"', "must be a number and a unit of W"),
        ('power_limit = "330 kW"', 'power_limit = "nan kW"', "site.power_limit"),
        ('power_limit = "330 kW"', "power_limit = 330", "site.power_limit"),
        ('power_limit = "330 kW"', 'power_limit = "3 kW"', "idle load"),
        ('name = "r1", power_limit = "100 kW"', 'name = "r1", power_limit = "1 kW"', "a/r1"),
        ('[[halls]]\nname = "b"', '[[halls]]\nname = "a"', "'a'"),
        ('[[feeds]]\nname = "A1"', '[[feeds]]\nname = "A"', "'A'"),
        ('name = "A"\npower_limit = "300 kW"', 'name = "A"\npower_limit = "300 kW"\nparent = "A1"', "cycle"),
        ('members = ["a/r2"]', 'members = ["a/r9"]', "a/r9"),
        ('zone = "phx"', 'zone = "fra"', "fra"),
        ("reduce_percent = 25", "reduce_percent = nan", "reduce_percent"),
        ("reduce_percent = 25", "reduce_percent = 95", "below the load of the idle site"),
        ("end = 1700030000", "end = 1700010000", "must be after start"),
        ('idle_power = "2 kW"', 'idle_power = "20 kW"', "max_power"),
        ("speed = 0.9}", "speed = 9.0}", "must be a number from 0.001 to 1"),
        ('capacity = "130 kW"', 'capacity = "13 kW"', "cooling capacity"),
        ("[site]", "[site", "not valid TOML"),
        ('kind = "fixed", capacity = "130 kW"', 'kind = "tower_chiller", capacity = "130 kW"', "weather"),
    ],
)
def test_a_wrong_site_is_refused_by_field_and_value(attempt, site_text, old, new, said):
    assert old in site_text
    code, error = attempt(site=site_text.replace(old, new, 1))
    assert code == 1
    assert said in error


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ("", "first line"),
        ("job_id,gpus,duration_s,colour\na,1,60,red\n", "colour"),
        ("job_id,gpus,duration_s\na,1000,60\n", "larger than any hall"),
        ("job_id,gpus,duration_s,halls\na,8,60,c\n", "must be one of a, b"),
        ("job_id,gpus,duration_s,node_types\na,8,60,v100\n", "must be one of a100, h100"),
        ("job_id,gpus,duration_s,halls,node_types\na,8,60,a,a100\n", "larger than any hall"),
        ("job_id,gpus,duration_s\na,-8,60\n", "gpus"),
        ("job_id,gpus,duration_s\na,8,nan\n", "duration_s"),
        ("job_id,gpus,duration_s\na,8,60 kW\n", "60 kW"),
        ("job_id,gpus,duration_s\na,8,60\na,8,60\n", "must be unique"),
        ("job_id,gpus,duration_s\na,8\n", "fewer cells"),
        ("job_id,gpus,duration_s,weight\na,8,60,nan\n", "weight"),
        ("job_id,gpus,duration_s,state,hall,mode,start_s\na,8,60,running,a,turbo,0\n", "must be one of full, eco, low"),
        ("job_id,gpus,duration_s,state,hall,mode,start_s\na,8,60,running,z,full,0\n", "must be one of a, b"),
        (
            "job_id,gpus,duration_s,state,hall,mode,start_s,nodes\na,8,60,running,a,full,0,b-r1-k01-n01\n",
            "must be a node of hall a",
        ),
        ("timestamp,duration,num_gpus,gpu_time,cluster\n", "no jobs"),
        ("timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,x,1,1,c\n", "line 2"),
        ("timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,60,512,1,c\n", "larger than any hall"),
        ("JobIDRaw|Submit|Elapsed\n", "AllocTRES"),
        ("; UnixStartTime: 0\n1 2 3\n", "line 2 is one with less than 5 numbers"),
    ],
)
def test_a_wrong_queue_is_refused_by_field_and_value(attempt, jobs, said):
    code, error = attempt(jobs=jobs)
    assert code == 1
    assert said in error


@pytest.mark.parametrize(
    "text", ["[", '[{"job_id": "a"}]', '{"job_id": "a"}', '[{"job_id":"a","gpus":1,"duration_s":60,"x":1}]']
)
def test_a_wrong_json_queue_is_refused(attempt, text):
    code, error = attempt(jobs=text, name="jobs.json")
    assert code == 1
    assert "jobs.json" in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_s,power_kw\n0,nan\n", "no values"),
        ("time_s,power_kw\n0,inf\n", "must be finite"),
        ("time_s,power_kw\n0,-5\n", "must not be negative"),
        ("time_s,power_hp\n0,5\n", "must have a column"),
        ("time_s,power_kw\n", "no rows"),
        ("time_s,power_kw\nyesterday,5\n", "must be seconds since the epoch"),
        ("time_s,power_kw\n1700000000,20\n1700040000,20\n", "below the load of the idle site"),
    ],
)
def test_a_wrong_grid_budget_is_refused(attempt, site_text, text, said):
    site = site_text.replace('power_limit = "330 kW"', 'grid_budget = "grid.csv"', 1)
    code, error = attempt(site=site, grid_csv=text)
    assert code == 1
    assert said in error


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("--horizon", "6 kW"), "--horizon"),
        (("--horizon", "1 s"), "--horizon"),
        (("--start", "noon"), "--start"),
        (("--seconds", "-1"), "--seconds"),
        (("--seconds", "nan"), "--seconds"),
        (("--down", "gn[1-"), "--down"),
        (("--down", "ghost"), "must be a node of the site"),
        (("--settings", "nowhere.toml"), "nowhere.toml"),
        (("--store", "mysql://x"), "store URL"),
        (("--what-if", "hall9.power=1MW"), "must be a zone"),
    ],
)
def test_wrong_arguments_are_refused(attempt, extra, said):
    code, error = attempt(extra=extra)
    assert code == 1
    assert said in error


def test_wrong_settings_are_refused_by_name(attempt, tmp_path):
    for text, said in (
        ("colour = 1", "colour"),
        ("risk = 2.0", "risk"),
        ("[objective]\nusd_per_gpu_h = -1.0", "usd_per"),
    ):
        (tmp_path / "round.toml").write_text(text)
        code, error = attempt(extra=("--settings", str(tmp_path / "round.toml")))
        assert code == 1
        assert said in error


def test_a_truncated_or_foreign_plan_is_refused(plan, tmp_path, capsys):
    from powerhall.plan.plan import write_plan

    path = tmp_path / "plan.json"
    write_plan(plan, path)
    whole = path.read_bytes()
    data = json.loads(whole)
    for text in (
        whole[: len(whole) // 2],
        b"",
        b"[]",
        json.dumps({**data, "version": 3}),
        json.dumps({**data, "x": 1}),
    ):
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        for arguments in (["verify", str(path)], ["explain", "j1", "--plan", str(path)], ["report", str(path)]):
            assert main(arguments) == 1
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert "plan.json" in error
    assert main(["verify", str(tmp_path / "none.json")]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_an_unknown_job_is_refused(plan, tmp_path, capsys):
    from powerhall.plan.plan import write_plan

    write_plan(plan, tmp_path / "plan.json")
    assert main(["explain", "nobody", "--plan", str(tmp_path / "plan.json")]) == 1
    assert "must be a job of the plan" in capsys.readouterr().err


def test_jobs_written_by_the_project_are_read_back(snapshot, attempt):
    assert attempt(jobs=write_jobs(snapshot.jobs))[0] == 0
