"""Compile all kernels of the engine, so that no replay has to: an hour of a small site with all that may happen."""

import sys
from dataclasses import replace

from powerhall.jobs.model import Job
from powerhall.physics.plants.plant import Plant
from powerhall.site.storage import Storage
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series
from powerhall_optimizer.jit import CacheState, cache_state
from powerhall_twin.engine.jit import cache_folder
from powerhall_twin.engine.measured_site import compile_measured
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import BASELINES
from powerhall_twin.site.failures import Failure, FailureKind, FailureRules
from powerhall_twin.site.scenario import Scenario

__all__ = ["compile_kernels", "compile_when_cold", "kernel_cache"]

_END_S = 3600.0


def kernel_cache() -> CacheState:
    """Return the state of the cache of the engine's kernels."""
    return cache_state(cache_folder())


def compile_when_cold(*, quiet: bool) -> None:
    """Compile where the cache is cold, and say so on stderr."""
    if not kernel_cache().warm:
        if not quiet:
            sys.stderr.write("compiling the engine, once per installation (about a minute) ...\n")
        compile_kernels()


def compile_kernels() -> None:
    """Call every kernel once, and note in the cache that all are compiled."""
    case = _scenario()
    for kind in BASELINES:
        simulate(case, kind.open(PolicyInputs(case)), kind.name)
    compile_measured(replace(case, failures=(), rules=None))
    kernel_cache().mark_warm()


def _scenario() -> Scenario:
    """Return an hour with a curtailment, a ramp, a battery, a failed node and a plant whose failure warms the hall."""
    modes = (Mode("full", "power_limit", 400.0, 1.0), Mode("low", "power_limit", 300.0, 0.8))
    kind = NodeType("node", "any", 2, 400.0, 1000.0, 400.0, 0.5, modes)
    racks = tuple(Rack(f"hall/row/k{k}", "node", (f"n{2 * k}", f"n{2 * k + 1}"), 2e3) for k in range(2))
    hall = Hall("hall", (RackRow("hall/row", racks),), (Plant("plant", "dry_cooler", 1e4),), Losses())
    site = Site(
        "site",
        (hall,),
        {"node": kind},
        budgets={"site": Series((0.0, 600.0, 1200.0), (1e4, 1.7e3, 1e4))},
        storages=(Storage("battery", "battery", "site", 100.0, 100.0, 1e5, 5e4, 0.0),),
        ramp_up_w_per_s=10.0,
    )
    jobs = tuple(Job(f"j{n}", 1 + n % 3, 900.0, 60.0 * n, preemptible=True) for n in range(6))
    failures = (
        Failure(FailureKind.NODE, "n1", 300.0, 900.0),
        Failure(FailureKind.PLANT, "hall/plant", 1500.0, 3000.0),
    )
    rules = FailureRules(throttle_k=0.5, trip_k=4.0, recover_k=0.2, step_s=30.0)
    return Scenario(site, jobs, 0.0, _END_S, failures=failures, rules=rules)
