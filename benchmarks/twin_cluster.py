"""The twin and the prices of rounds on Dask workers of this machine: the results of one process, also when one dies."""

import argparse
import math
import os
import random
import resource
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec
import numpy as np
import psutil
from distributed import LocalCluster
from sites import SLOT_S, jobs_of, site_of, snapshot_of

from powerhall.plan.plan import Snapshot
from powerhall.runtime.log import Log
from powerhall_optimizer.cluster import Cluster, connected
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.cluster_bound import shard_gains
from powerhall_optimizer.planning.planner import prepare_site
from powerhall_optimizer.problem.arrays import Problem, Schedule
from powerhall_optimizer.problem.certificate import make_certificate
from powerhall_optimizer.problem.join_sites import join_problems
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.prices import Prices
from powerhall_optimizer.solve.shards import ClusterPricing
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, certificate_of
from powerhall_optimizer.verify.value import proven_bound
from powerhall_twin.policies.policy import RoundTiming
from powerhall_twin.replay.calls import Here
from powerhall_twin.replay.replay import ReplayCase
from powerhall_twin.replay.sweep import run_sweep, sweep_points


@contextmanager
def workers(count: int) -> Iterator[tuple[Cluster, LocalCluster]]:
    """Start a cluster of so many worker processes of one thread, and connect to it."""
    with (
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None, memory_limit=0) as local,
        connected(local.scheduler_address) as cluster,
    ):
        yield cluster, local


def _kill_one(local: LocalCluster, after_s: float, killed: list[int]) -> threading.Timer:
    def kill() -> None:
        pid = next(iter(local.workers.values())).pid
        psutil.Process(pid).kill()
        killed.append(pid)

    timer = threading.Timer(after_s, kill)
    timer.start()
    return timer


def _memory_mib(local: LocalCluster) -> list[float]:
    return [round(psutil.Process(one.pid).memory_info().rss / 2**20, 1) for one in local.workers.values()]


def sweeps(args: argparse.Namespace, case: ReplayCase) -> dict[str, object]:
    """Run one sweep in this process, on one and on two workers, and on two of which one is killed."""
    points = sweep_points(["", "grid=-10%", "grid=-20%", "grid=-30%"], ["fcfs", "easy"], range(1, args.runs // 8 + 1))
    began = time.monotonic()
    expected = run_sweep(case, points, RoundTiming(), Here(1))
    serial_s = time.monotonic() - began
    out: dict[str, object] = {"runs": len(points), "serial_s": round(serial_s, 2)}
    for name, count, kill in (("one", 1, False), ("two", 2, False), ("two, one killed", 2, True)):
        killed: list[int] = []
        with workers(count) as (cluster, local):
            began = time.monotonic()
            timer = _kill_one(local, serial_s / 4, killed) if kill else None
            rows = run_sweep(case, points, RoundTiming(), cluster)
            seconds = time.monotonic() - began
            if timer is not None:
                timer.cancel()
        out[name] = {"seconds": round(seconds, 2), "same": rows == expected, "killed": len(killed)}
        print(name, out[name], file=sys.stderr)
    return out


def _snapshots(args: argparse.Namespace) -> list[Snapshot]:
    """Return the sites with one queue of which each job may run at one site, some at two."""
    draw = random.Random(args.price_sites)
    names = [f"site{number + 1}" for number in range(args.price_sites)]
    each = args.price_jobs // args.price_sites
    sites = [site_of(max(16, each // 30), 1, number, name) for number, name in enumerate(names)]
    jobs = []
    for number, (site, name) in enumerate(zip(sites, names, strict=True)):
        for job in jobs_of(site, each, args.price_slots, number):
            allowed = (name, draw.choice(names)) if draw.random() < 0.1 else (name,)
            jobs.append(
                msgspec.structs.replace(job, job_id=f"{name}-{job.job_id}", sites=tuple(dict.fromkeys(allowed)))
            )
    return [snapshot_of(site, tuple(jobs), args.price_slots, 1) for site in sites]


def _stage(problem: Problem, steps: int, pricing: ClusterPricing | None, threads: int) -> tuple[SolverState, float]:
    state = SolverState(presolve(problem), Schedule.empty(problem.jobs), int(problem.job_wait_value.sum()))
    with ThreadPoolExecutor(threads) as pool:
        began = time.monotonic()
        budget = SolveBudget(math.inf, lambda: False, pool, threads, 1, iterations=steps, pricing=pricing)
        found = Prices().run(state, budget)
        return found, time.monotonic() - began


def prices(args: argparse.Namespace) -> dict[str, object]:
    """Price the jobs of many sites here and on one and two workers, one of which is killed; add up the bound there."""
    began = time.monotonic()
    snapshots = _snapshots(args)
    prepared = [prepare_site(s, RoundSettings(), Log(quiet=True)).built for s in snapshots]
    problem = join_problems([s.site.name for s in snapshots], prepared).built.problem
    del prepared
    out: dict[str, object] = {
        "jobs": problem.jobs,
        "sites": len(snapshots),
        "slots": problem.slots,
        "slot_s": SLOT_S,
        "options": problem.options,
        "steps": args.price_steps,
        "build_s": round(time.monotonic() - began, 1),
    }
    here, seconds = _stage(problem, args.price_steps, None, 1)
    certificate = make_certificate(problem, certificate_of(problem, here.price))
    began = time.monotonic()
    bound = proven_bound(snapshots, certificate, {}, joint=True)
    out["here"] = {"prices_s": round(seconds, 2), "bound_s": round(time.monotonic() - began, 2), "bound": bound}
    out["rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    print(out, file=sys.stderr)
    for name, count, kill in (("one", 1, False), ("two", 2, False), ("two, one killed", 2, True)):
        killed: list[int] = []
        with workers(count) as (cluster, local):
            pricing = ClusterPricing(cluster)
            timer = _kill_one(local, seconds / 2, killed) if kill else None
            there, spent = _stage(problem, args.price_steps, pricing, 1)
            if timer is not None:
                timer.cancel()
            memory = _memory_mib(local)
            began = time.monotonic()
            certificate = make_certificate(problem, certificate_of(problem, there.price))
            gains = shard_gains(cluster, snapshots, certificate, {}, joint=True)
            found = proven_bound(snapshots, certificate, {}, joint=True, gains=gains)
            out[name] = {
                "prices_s": round(spent, 2),
                "bound_s": round(time.monotonic() - began, 2),
                "bound": found,
                "same": bool(found == bound and here.bound == there.bound and np.array_equal(here.price, there.price)),
                "shards": len(pricing.shards),
                "priced": pricing.priced,
                "killed": len(killed),
                "worker_rss_mib": memory,
            }
        print(name, out[name], file=sys.stderr)
    return out


def scale(args: argparse.Namespace, case: ReplayCase) -> dict[str, object]:
    """Return both parts."""
    out = {"sweep": sweeps(args, case)} if args.runs else {}
    if args.price_jobs:
        out["prices"] = prices(args)
    out["load_of_machine"] = round(os.getloadavg()[0], 1)
    return out
