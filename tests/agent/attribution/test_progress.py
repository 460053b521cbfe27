"""Progress that jobs report, beside their energy: what counts, whose it is, and what is no report."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.runtime.errors import Rejected
from powerhall.store import Filter, Query, Select, open_store
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.attribution.collect import Attribution
from powerhall_agent.attribution.host import HostJobs
from powerhall_agent.attribution.progress import Progress, read_report
from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder

NOW_S = 1_700_000_000.0
ME = os.getuid()


def points(records):
    return [point.fields for record in records for point in parse_lines(record.line())]


def job(name="4711", user=ME):
    return Holder(name, user=user)


def test_a_slurm_jobs_tokens_and_energy_are_in_the_store(tmp_path):
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n")
    (tmp_path / "proc" / "7" / "comm").write_text("python\n")
    reports = tmp_path / "reports"
    host = HostJobs(lambda _: "", proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")
    now = {}
    attribution = Attribution({"node": "n", "site": "s"}, host, lambda: now, tmp_path / "no", reports=reports)
    store = open_store(f"sqlite:///{tmp_path}/t.db")
    for step in range(0, 601, 5):
        if step == 30:
            reports.mkdir()
        if step >= 30:
            (reports / "4711").write_text(f"tokens {1000 * step}\nsteps {step // 10}\n")
        now[0] = GpuSnapshot("GPU-x", "00000000:17:00.0", (7,), 700.0 * step)
        store.write(b"".join(record.line() for record in attribution.observe(NOW_S + step)))
    select = (Select("energy_j", "sum", "j_per_unit", per="done"), Select("done", "sum"))
    where = Filter("job", "=", "4711")
    found = {}
    for unit in ("tokens", "steps"):
        query = Query("job_progress", select, filters=(where, Filter("unit", "=", unit)))
        (row,) = store.query(query, NOW_S, NOW_S + 700)
        found[unit] = row.values
    store.close()
    assert found["tokens"]["done"] == 540_000.0  # from the first report, at 60 s, to the last
    assert found["tokens"]["j_per_unit"] == pytest.approx(0.7)
    assert found["steps"]["j_per_unit"] == pytest.approx(7000.0)


def test_ranks_add_up_and_the_rest_is_told_when_a_job_ends(tmp_path):
    progress = Progress({"node": "n"}, tmp_path)
    for rank in range(4):
        (tmp_path / f"4711.{rank}").write_text(f"tokens {rank}")
    assert progress.observe(NOW_S, [(job(), 0.0), (job(), 0.0)]) == []  # what was done before is not of this time
    for rank in range(4):
        (tmp_path / f"4711.{rank}").write_text(f"tokens {rank + 100}")
    assert progress.observe(NOW_S + 30, [(job(), 50.0), (job(), 25.0)]) == []
    (fields,) = points(progress.observe(NOW_S + 40, []))
    assert fields == {"job": "4711", "unit": "tokens", "done": 400.0, "total": 406.0, "energy_j": 75.0}
    assert progress.observe(NOW_S + 50, []) == []


def test_a_job_that_goes_on_from_a_checkpoint_counts_what_it_does_again(tmp_path):
    progress = Progress({"node": "n"}, tmp_path)
    done = []
    for minute, count in enumerate((100, 300, 40, 90)):
        (tmp_path / "4711").write_text(f"steps {count}")
        done += [fields["done"] for fields in points(progress.observe(NOW_S + 61 * minute, [(job(), 100.0 * minute)]))]
    assert done == [200.0, 40.0, 50.0]


@pytest.mark.parametrize("name", ["4711", "ml_train.a", "ml_train.a.0", "7"])
def test_reports_go_by_the_jobs_name(tmp_path, name):
    progress = Progress({"node": "n"}, tmp_path)
    jobs = [(job(found), 0.0) for found in ("4711", "ml/train.a", "process:python:7")]
    (tmp_path / name).write_text("tokens 1")
    progress.observe(NOW_S, jobs)
    (tmp_path / name).write_text("tokens 3")
    (fields,) = points(progress.observe(NOW_S + 61, jobs))
    wanted = {"4711": "4711", "7": "process:python:7"}.get(name, "ml/train.a")
    assert (fields["job"], fields["done"]) == (wanted, 2.0)


@pytest.mark.parametrize(
    "body",
    [b"tokens", b"tokens 1 2", b"tokens x", b"tokens nan", b"tokens inf", b"tokens 1e30", b"tokens -1", b"Tokens 1",
     b"tokens 1\ntokens 2", b"\xff\xfe", b"tokens " + b"1" * 5000, b"9 9", b"a,b=c 1", b'x" 1',
     b"".join(b"u%d 1\n" % n for n in range(9))],
)  # fmt: skip
def test_what_is_no_report_costs_itself_alone(tmp_path, capsys, body):
    progress = Progress({"node": "n"}, tmp_path)
    for count in (1, 2):
        (tmp_path / "4711.0").write_bytes(body)
        (tmp_path / "4711.1").write_text(f"tokens {count}")
        found = points(progress.observe(NOW_S + 61 * count, [(job(), 10.0 * count)]))
    assert [fields["done"] for fields in found] == [1.0]
    assert capsys.readouterr().err.count("progress_refused") == 1
    with pytest.raises(Rejected, match=r"4711\.0"):
        read_report(tmp_path / "4711.0")


def test_links_pipes_folders_and_another_users_report_are_not_read(tmp_path, capsys):
    (tmp_path / "secret").write_text("tokens 5")
    (tmp_path / "4711.0").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "4711.1")
    (tmp_path / "4711.2").mkdir()
    (tmp_path / "8.0").write_text("tokens 1")
    progress = Progress({"node": "n"}, tmp_path)
    others = (job(), 0.0), (job("8", user=ME + 1 if ME else 12345), 0.0), (job("9", user=-1), 0.0)
    if ME == 0:
        os.chown(tmp_path / "8.0", 54321, -1)
    for minute in range(3):
        assert progress.observe(NOW_S + 61 * minute, others) == []
    assert capsys.readouterr().err.count("another user's") == 1


def test_a_pod_whose_user_is_not_known_is_believed(tmp_path):
    progress = Progress({"node": "n"}, tmp_path)
    for minute in range(2):
        (tmp_path / "ml_a").write_text(f"tokens {minute}")
        found = progress.observe(NOW_S + 61 * minute, [(job("ml/a", user=-1), 0.0)])
    assert len(found) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0.0, 1e5), st.booleans()), min_size=2, max_size=30))
def test_energy_and_progress_sum_up_whatever_comes_between(tmp_path_factory, minutes):
    """The sums of all points are the energy and the work from the first report to the last."""
    folder = tmp_path_factory.mktemp("reports")
    progress = Progress({"node": "n"}, folder)
    dice = random.Random(len(minutes))
    count, energy_j, work, records = 0, 0.0, 0, []
    for minute, (more, more_j, restarts) in enumerate(minutes):
        count = more if restarts and minute else count + more
        work += more if minute else 0
        energy_j += more_j
        (folder / "4711").write_text(f"tokens {count}")
        first_j = dice.random() * energy_j
        records += progress.observe(NOW_S + 61 * minute, [(job(), first_j), (job(), energy_j - first_j)])
    found = points(records)
    # a restart that has done as much again as before cannot be told from going on
    assert sum(fields["done"] for fields in found) <= work
    if not any(restarts for _, _, restarts in minutes[1:]):
        assert sum(fields["done"] for fields in found) == work
    assert sum(fields["energy_j"] for fields in found) == pytest.approx(energy_j - minutes[0][1], abs=0.1)
    assert len({record.time_ms for record in records}) == len(records)
