"""On a Dask cluster sweeps and sizes are what they are here, also when workers or the scheduler die."""

import json
import math
import random
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from twin_jobs import START_S, job

from powerhall.jobs.job_files import write_jobs
from powerhall.jobs.model import Job
from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall_optimizer import cluster as cluster_module
from powerhall_optimizer.cluster import Cluster, OtherVersion, check_address, connected, is_open_to_others
from powerhall_optimizer.planning.cluster_bound import shard_gains
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.certificate import make_certificate
from powerhall_optimizer.problem.site_problem import build_problem
from powerhall_optimizer.solve import shards
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.prices import Prices
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, certificate_of
from powerhall_optimizer.verify.value import proven_bound
from powerhall_twin.cli import main
from powerhall_twin.policies.policy import RoundTiming
from powerhall_twin.replay.calls import Here
from powerhall_twin.replay.replay import ReplayCase
from powerhall_twin.replay.size import SizingGoal, size
from powerhall_twin.replay.sweep import SweepPoint, run_sweep, sweep_points
from rigs.dask_cluster import dask_cluster, fails

dask = pytest.importorskip("dask", reason="needs the extra cluster")
pytest.importorskip("distributed", reason="needs the extra cluster")
TIMING = RoundTiming(solve_s=0.5)


def not_there(_shared: None, item: int) -> int:
    return item


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Dask's settings for certificates of this test, as settings and as environment of other processes."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=powerhall"]
    done = subprocess.run([*made, "-keyout", key, "-out", cert], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    values = {"ca-file": cert, **{f"{who}.{what}": path for who in ("client", "scheduler", "worker")
                                  for what, path in (("key", key), ("cert", cert))}}  # fmt: skip
    settings = {f"distributed.comm.tls.{name}": str(path) for name, path in values.items()}
    environment = {f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": path for name, path in settings.items()}
    return settings, environment


@pytest.fixture(scope="module")
def rig(tls, tmp_path_factory):
    with dask_cluster(tmp_path_factory.mktemp("dask"), scheme="tls", environment=tls[1]) as started:
        yield started


@pytest.fixture
def case(scenario):
    return ReplayCase(scenario(*(job(f"b{i}", 32, 1.0, submit_s=START_S + 60 * i) for i in range(8)), hours=2))


@pytest.fixture
def secured(tls):
    with dask.config.set(tls[0]):
        yield


def test_sweeps_and_sizes_are_those_of_this_process_also_when_a_worker_is_killed(case, rig, secured):
    points = [*sweep_points(["", "hall1.power=100 kW"], ["fcfs"], [0, 1, 2]), SweepPoint("", "powerhall", 0)]
    goal = SizingGoal(most_factor=0.2, resolution=0.5)
    done: list[float] = []

    def progress(_name: str, part: float) -> None:
        done.append(part)
        if len(done) == 2:
            rig.workers[0].kill()
            rig.add_worker()

    with connected(rig.address) as cluster:
        assert run_sweep(case, points, TIMING, cluster, progress) == run_sweep(case, points, TIMING, Here(1))
        here, there = (size(case.scenario, ["easy"], goal, [1, 2], TIMING, calls=at) for at in (None, cluster))
    assert here == there
    assert done == [(i + 1) / 7 for i in range(7)]
    assert len(rig.workers) == 3
    assert rig.workers[0].wait() < 0


class _Interrupted(shards.ClusterPricing):
    """Has something happen before its sixth evaluation."""

    def price(self, *args):
        if self.priced == 5:
            self.interrupt()
        return super().price(*args)


def test_prices_and_bound_over_shards_are_the_same_to_the_last_unit(site, rig, secured, monkeypatch):
    monkeypatch.setattr(shards, "_LEAST_JOBS", 10)
    monkeypatch.setattr(Cluster, "threads", 3)  # how many shards, whatever workers there are
    draw = random.Random(3)
    jobs = tuple(
        Job(f"j{i}", draw.choice((1, 2, 8, 16)), draw.randint(600, 20_000), START_S + draw.uniform(0, 3600))
        for i in range(90)
    )
    s = Snapshot(int(START_S), int(START_S), 300, 24, site, jobs)
    problem = build_problem(s).problem
    state = SolverState(presolve(problem), Schedule.empty(len(jobs)), int(problem.job_wait_value.sum()))
    with connected(rig.address, 60.0) as cluster, ThreadPoolExecutor(2) as pool:
        pricing = _Interrupted(cluster)
        pricing.interrupt = lambda: (rig.add_worker(), rig.workers[-2].kill())
        budgets = [
            SolveBudget(math.inf, lambda: False, pool, 2, 1, iterations=20, pricing=at) for at in (None, pricing)
        ]
        found = [Prices().run(state, budget) for budget in budgets]
        assert found[0].bound == found[1].bound
        assert np.array_equal(found[0].price, found[1].price)
        assert (pricing.priced, len(pricing.shards), pricing.lost) == (20, 3, "")
        certificate = make_certificate(problem, certificate_of(problem, found[0].price))
        gains = shard_gains(cluster, [s], certificate, {})
    assert proven_bound([s], certificate, {}, gains=gains) == proven_bound([s], certificate, {})
    assert proven_bound([s], certificate, {}, gains=gains + (1 << 41)) != proven_bound([s], certificate, {})


def test_a_cluster_without_the_certificates_and_wrong_addresses_are_refused(rig, monkeypatch):
    with pytest.raises(Rejected, match="TLS needs Dask's settings"), connected(rig.address):
        pass
    for text in ("10.0.0.1", "tcp://a", "tcp://a:0", "tcp://a:99999", "http://a:80", "tcp://a:1/x", "inproc://1/2/3"):
        with pytest.raises(Rejected, match="must be an address"):
            check_address(text)
    monkeypatch.setattr(cluster_module, "_CONNECT_S", 0.3)
    for address in ("tcp://127.0.0.1:9", rig.address.replace("tls", "tcp")):
        with pytest.raises(PowerhallError, match="no scheduler answers"), connected(address):
            pass
    open_ones = [is_open_to_others(f"{at}:8786") for at in ("tcp://10.0.0.1", "tls://10.0.0.1", "tcp://127.0.0.1")]
    assert open_ones == [True, False, False]


def test_errors_of_calls_are_raised_and_other_versions_compute_nothing(rig, secured, monkeypatch):
    with connected(rig.address) as cluster:
        with pytest.raises(ValueError, match="item 1"):
            cluster.map(fails, None, [1])
        with pytest.raises(OtherVersion, match="the scheduler has no Powerhall, or another version"):
            cluster.map(not_there, None, [1])
        other = tuple((name, "9.9" if name == "numpy" else own) for name, own in cluster_module.versions())
        monkeypatch.setattr(cluster_module, "versions", lambda: other)
        with pytest.raises(OtherVersion, match=r"has numpy [\d.]+ instead of 9.9: install the same"):
            cluster.map(fails, None, [1])


def test_a_scheduler_that_goes_loses_nothing_that_is_done(demo_folder, tmp_path, capsys, monkeypatch):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(write_jobs([job(f"b{i}", 32, 1.0, submit_s=START_S + 60 * i) for i in range(30)]))
    args = ["sweep", "--site", str(demo_folder / "site.toml"), "--jobs", str(jobs), "--length", "2h", "--seeds", "20"]
    args += ["--policies", "easy", "--out", str(tmp_path / "out.json")]
    kept = tmp_path / "out.json.rows"
    monkeypatch.setattr(cluster_module, "_CONNECT_S", 10.0)
    with dask_cluster(tmp_path, workers=1) as rig:

        def kill() -> None:
            while not (kept.exists() and kept.read_bytes().count(b"\n") >= 3):
                time.sleep(0.01)
            monkeypatch.setattr(cluster_module, "_CONNECT_S", 0.5)
            rig.scheduler.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        assert main([*args, "--scheduler", rig.address]) == 1
        thread.join()
    said = capsys.readouterr().err
    assert "the scheduler has gone; the same command goes on," in said
    before = kept.read_bytes().count(b"\n")
    assert 3 <= before < 20
    assert main([*args, "--workers", "1"]) == 0
    assert not kept.exists()
    assert main([*args[:-1], str(tmp_path / "again.json"), "--workers", "1"]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads((tmp_path / "again.json").read_text())
