"""Rounds under faults (time-out, kill -9, overlap, clock, corrupt files, NaN): the published plan stays verified."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from powerhall.jobs import Job, write_jobs
from powerhall.plan.plan import Certificate, Plan, read_plan, write_plan
from powerhall.runtime.errors import Rejected
from powerhall.store import Query, Row, Select, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.telemetry import node_state, store_queue
from powerhall_optimizer.schedulers.base import Queue
from powerhall_optimizer.verify.plan import verify_plan

START_S = 1_700_000_100
COMMAND = [sys.executable, "-c", "from powerhall_optimizer.entry import main; raise SystemExit(main())"]
replace = msgspec.structs.replace


@pytest.fixture
def files(tmp_path, site_text, snapshot):
    """A folder with site.toml and jobs.csv."""
    (tmp_path / "site.toml").write_text(site_text)
    (tmp_path / "jobs.csv").write_text(write_jobs(snapshot.jobs))
    return tmp_path


def arguments(folder, *extra, start=START_S, seconds="2"):
    return [
        "round", "--site", str(folder / "site.toml"), "--jobs", str(folder / "jobs.csv"), "--start", str(start),
        "--horizon", "12h", "--seconds", seconds, "--out", str(folder / "plan.json"), *extra,
    ]  # fmt: skip


def verified(folder) -> Plan:
    plan = read_plan(folder / "plan.json")
    assert verify_plan(plan) == []
    return plan


def waiting_for(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def more_jobs(folder, count):
    """A queue so large that a round takes a while."""
    jobs = [Job(f"m{i}", 1 + i % 16, 600.0 + 37 * i % 9000, START_S + 11.0 * i % 40_000) for i in range(count)]
    (folder / "jobs.csv").write_text(write_jobs(jobs))


def test_a_round_without_time_still_publishes_a_verified_plan(files):
    assert main(arguments(files, "--quiet", seconds="0.01")) == 0
    assert verified(files).assignments


def test_the_same_round_twice_gives_the_same_plan_and_writes_nothing_new(files):
    assert main(arguments(files, "--quiet")) == 0
    before = (files / "plan.json").read_bytes(), (files / "plan.json").stat().st_mtime_ns
    assert main(arguments(files, "--quiet")) == 0
    assert before == ((files / "plan.json").read_bytes(), (files / "plan.json").stat().st_mtime_ns)


def test_an_unchanged_plan_of_the_store_is_written_where_its_file_is_not_there(files, capsys):
    """A round says the name of its file: the file is there then, and fit for leases."""
    store = "sqlite:///" + str(files / "power.db")
    assert main(arguments(files, "--store", store)) == 0
    for name in ("plan-new.json", "plan.json"):
        (files / "plan.json").unlink(missing_ok=True)
        options = arguments(files, "--store", store)
        options[options.index("--out") + 1] = str(files / name)
        capsys.readouterr()
        assert main(options) == 0
        assert name in capsys.readouterr().out
        plan = read_plan(files / name)
        assert verify_plan(plan) == []
        assert (files / name.replace(".json", "-ladder.json")).exists()
        assert json.loads((files / f"{name}.newest").read_text())["plan_id"] == plan.plan_id


def test_a_round_killed_at_any_moment_leaves_the_last_plan_and_the_next_round_runs(files):
    assert main(arguments(files, "--quiet")) == 0
    before = verified(files)
    more_jobs(files, 1500)
    for moment_s in (0.1, 0.6, 1.2, 2.0):
        child = subprocess.Popen(
            [*COMMAND, *arguments(files, start=START_S + 600, seconds="30")], stderr=subprocess.DEVNULL
        )
        time.sleep(moment_s)
        child.kill()
        child.wait()
        assert verified(files).plan_id == before.plan_id
    assert main(arguments(files, "--quiet", start=START_S + 600)) == 0
    assert verified(files).plan_id != before.plan_id


def test_sigterm_ends_the_solving_and_publishes_the_best_plan_so_far(files):
    more_jobs(files, 1500)
    child = subprocess.Popen([*COMMAND, *arguments(files, seconds="120")], stderr=subprocess.PIPE, text=True)
    waiting_for((files / ".plan.json.lock").exists, "the round did not begin")
    time.sleep(2.0)
    began = time.monotonic()
    child.send_signal(signal.SIGTERM)
    _, log = child.communicate(timeout=100)
    assert child.returncode == 0, log
    assert time.monotonic() - began < 60
    assert verified(files).assignments


def test_a_second_round_on_the_same_plan_is_refused_while_the_first_runs(files, capsys):
    import fcntl

    handle = os.open(files / ".plan.json.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert main(arguments(files, "--quiet")) == 1
        assert "another round is running" in capsys.readouterr().err
        assert not (files / "plan.json").exists()
    finally:
        os.close(handle)
    assert main(arguments(files, "--quiet")) == 0


def test_a_clock_that_steps_back_or_far_ahead_does_not_affect_the_round(files):
    for start in (START_S, START_S - 86_400, START_S + 40 * 86_400, START_S + 300):
        assert main(arguments(files, "--quiet", start=start)) == 0
        assert verified(files).snapshot.start_s == start // 300 * 300


@pytest.mark.parametrize("garbage", [b"", b"{", b'{"version": 1}', os.urandom(300)])
def test_a_corrupt_last_plan_is_left_out(files, capsys, garbage):
    (files / "plan.json").write_bytes(garbage)
    assert main(arguments(files)) == 0
    assert "event=last_plan_unreadable" in capsys.readouterr().err
    assert verified(files)


@pytest.mark.parametrize(
    "certificate",
    [
        Certificate(3, {"phx.facility_w": (1,)}),
        Certificate(1 << 20, {"moon.it_w": (1,) * 144}),
        Certificate(1 << 20, {"phx.facility_w": (10**30,) * 144}),
        Certificate(1 << 20, {"phx.facility_w": (-5,) * 144}),
        Certificate(1 << 20, {"phx.facility_w": ()}),
        Certificate(1 << 20, {"phx.facility_w//0": (4,) * 144}),
    ],
)
def test_a_corrupt_warm_start_does_not_affect_the_round(files, certificate):
    assert main(arguments(files, "--quiet")) == 0
    plan = verified(files)
    write_plan(replace(plan, certificate=certificate, value=7, plan_id="0" * 64), files / "plan.json")
    assert verify_plan(read_plan(files / "plan.json"))
    assert main(arguments(files, "--quiet")) == 0
    assert verified(files).value >= 0.8 * plan.value


def test_a_last_plan_that_was_tampered_with_is_planned_anew(files):
    assert main(arguments(files, "--quiet")) == 0
    plan = verified(files)
    first = replace(plan.assignments[0], gpu_power_w=1.0)
    write_plan(replace(plan, assignments=(first, *plan.assignments[1:])), files / "plan.json")
    assert main(arguments(files, "--quiet")) == 0
    assert verified(files).assignments


class OnlyNaN:
    """A store whose readings are all NaN."""

    def query(self, query: Query, start_s: float, end_s: float) -> list[Row]:
        return [Row(start_s, {"node": "a-r1-k01-n01"}, {entry.name: math.nan for entry in query.select})]


def test_a_reading_of_nan_is_no_data(site):
    assert node_state(OnlyNaN(), site, START_S, 120.0) == node_state(OnlyNaN(), site, START_S, 120.0)
    assert not node_state(OnlyNaN(), site, START_S, 120.0).known


def telemetry(store, site, nodes, time_s):
    store.write(
        b"".join(
            encode(
                Point(
                    "node",
                    {"site": site.name, "hall": "a", "rack": "r", "node": node},
                    {"power_w": 3e3},
                    int(time_s * 1000),
                )
            )
            for node in nodes
        )
    )


def test_stale_nodes_are_found_and_a_fifth_of_them_raises_the_alarm(files, site, capsys):
    url = f"sqlite:///{files}/store.db"
    store = open_store(url)
    names = [node for rack in site.racks() for node in rack.nodes]
    telemetry(store, site, names[4:], START_S)
    telemetry(store, site, names[:4], START_S - 600)
    assert set(node_state(store, site, START_S + 10, 120.0).stale) == set(names[:4])
    assert main(arguments(files, "--store", url)) == 0
    plan = verified(files)
    assert set(plan.snapshot.stale_nodes) == set(names[:4])
    assert plan.snapshot.allow_raises
    capsys.readouterr()

    telemetry(store, site, names[12:], START_S + 600)
    assert main(arguments(files, "--store", url, start=START_S + 600)) == 0
    plan = verified(files)
    assert len(plan.snapshot.stale_nodes) == 12
    assert not plan.snapshot.allow_raises
    assert "level=warning event=stale_nodes" in capsys.readouterr().err

    assert main(arguments(files, "--store", url, start=START_S + 3600)) == 0
    plan = verified(files)
    assert len(plan.snapshot.stale_nodes) == len(names)
    assert not plan.assignments, "nothing starts on nodes that nobody hears"
    row = store.query(Query("alert", (Select("active"), Select("detail")), {"site": "phx"}), 0.0, START_S + 9999.0)[-1]
    assert row.values["active"] == 1.0
    store.close()


def test_the_store_gets_the_plan_its_zones_and_its_jobs(files, site):
    url = f"sqlite:///{files}/store.db"
    assert main(arguments(files, "--quiet", "--store", url)) == 0
    plan = verified(files)
    store = open_store(url)
    try:
        (row,) = store.query(Query("plan", (Select("plan_id"), Select("verified"), Select("jobs_waiting"))), 0.0, 4e9)
        assert row.values == {"plan_id": plan.plan_id, "verified": 1.0, "jobs_waiting": float(len(plan.waiting))}
        zones = store.query(
            Query("plan_zone", (Select("planned_w", "max"), Select("headroom_w", "min")), {}, ("zone",)), 0.0, 4e9
        )
        assert {r.tags["zone"] for r in zones} == set(site.zones())
        assert all((r.number("headroom_w") or 0.0) >= -1.0 for r in zones)
        jobs = store.query(Query("plan_job", (Select("job"), Select("state"), Select("reason"))), 0.0, 4e9)
        assert len(jobs) == len(plan.assignments) + len(plan.waiting)
        assert all(r.values["reason"] for r in jobs if r.values["state"] == "waiting")
        assert msgspec.json.decode(store.latest_document("plan", "phx"), type=Plan) == plan
    finally:
        store.close()


def test_the_queue_comes_from_the_store_when_no_file_is_given(files, snapshot):
    url = f"sqlite:///{files}/store.db"
    store = open_store(url)
    with pytest.raises(Rejected, match="no document"):
        store_queue(store, "phx")
    store.put_document("queue", "phx", START_S, msgspec.json.encode(list(snapshot.jobs)))
    store.close()
    command = [a for a in arguments(files, "--quiet", "--store", url) if a not in ("--jobs", str(files / "jobs.csv"))]
    assert main(command) == 0
    assert {job.job_id for job in verified(files).snapshot.jobs} == {job.job_id for job in snapshot.jobs}


def test_the_schedulers_queue_document_brings_jobs_and_unusable_nodes(files, snapshot):
    node = next(snapshot.site.racks()).nodes[0]
    url = f"sqlite:///{files}/store.db"
    store = open_store(url)
    queue = Queue(START_S, snapshot.jobs, (node, "of-another-site"))
    store.put_document("queue", "phx", START_S, msgspec.json.encode(queue))
    store.close()
    command = [a for a in arguments(files, "--quiet", "--store", url) if a not in ("--jobs", str(files / "jobs.csv"))]
    assert main(command) == 0
    assert verified(files).snapshot.down_nodes == (node,)


def test_a_dry_run_publishes_nothing(files, capsys):
    url = f"sqlite:///{files}/store.db"
    assert main(arguments(files, "--quiet", "--store", url, "--dry-run", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] is True
    assert told["jobs_started"] > 0
    assert not (files / "plan.json").exists()
    store = open_store(url)
    assert store.query(Query("plan", (Select("plan_id"),)), 0.0, 4e9) == []
    store.close()


def test_what_if_prints_the_difference_and_publishes_nothing(files, capsys):
    assert main(arguments(files, "--quiet", "--what-if", "b.power=60kW,grid=-20%", seconds="1")) == 0
    told = capsys.readouterr().out
    assert "GPU hours of work" in told
    assert not (files / "plan.json").exists()
    line = next(line for line in told.splitlines() if line.startswith("GPU hours"))
    before, after = (float(cell.replace(",", "")) for cell in line.split()[4:6])
    assert after < before
