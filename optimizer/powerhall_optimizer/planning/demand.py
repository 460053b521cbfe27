"""Plans under demand charges: one that keeps the month's peak and one that need not, and the better of them.

Both prove a bound for the same value, which counts the charge, so that the lower bound holds for both.
"""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.assemble import restated
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.verify.demand import demand_cost
from powerhall_optimizer.verify.options import unit_usd

__all__ = ["better_of_two", "keeping_peaks", "less_demand"]


def keeping_peaks(built: BuiltProblem, snapshot: Snapshot, running: Schedule) -> BuiltProblem:
    """Return the problem whose power at the meter stays within the peaks so far, or what runs already where more."""
    problem = built.problem
    if not len(problem.curves.meter_row):
        return built
    row = int(problem.curves.meter_row[0])
    needed = usage_of(problem, running)[row]
    capacity = problem.capacity.copy()
    idle_w = problem.curves.idle_w.sum(axis=0)
    for term in snapshot.demand:
        slots = np.array(term.slots, np.int64)
        room = np.maximum(needed[slots], np.int64(term.peak_w) - idle_w[slots])
        capacity[row, slots] = np.minimum(capacity[row, slots], np.maximum(0, room))
    return replace(built, problem=replace(problem, capacity=capacity))


def less_demand(plan: Plan) -> Plan:
    """Return the plan with its value less what it pays for raising peaks."""
    cost = demand_cost(plan, unit_usd(plan.snapshot)) if plan.snapshot.demand else 0
    return plan if cost == 0 else _restated(plan, plan.value - cost, plan)


def better_of_two(make: Callable[[float, bool], Plan], snapshot: Snapshot, seconds: float, log: Log) -> Plan:
    """Return the plan of more value, of one that keeps the peaks and one that may raise them, with the lower bound.

    `make` makes a plan in so many seconds, the first kind where the flag is set. Without charges one plan is made.
    """
    if not snapshot.demand:
        return make(seconds, False)
    free = make(seconds / 2, False)
    if demand_cost(free, unit_usd(snapshot)) == 0:
        return free
    try:
        keeps = make(seconds / 2, True)
    except PowerhallError as error:
        log.warning("peak_not_kept", reason=error)
        return free
    best, proof = max(free, keeps, key=lambda plan: plan.value), min(free, keeps, key=lambda plan: plan.bound)
    log.info("demand_charges", kept=best is keeps, value=best.value, bound=proof.bound)
    return _restated(best, best.value, proof)


def _restated(plan: Plan, value: int, proof: Plan) -> Plan:
    """Return the plan with a value, and with the bound and the certificate of a plan of the same snapshot."""
    plan = restated(plan, value, proof.bound)
    notes = tuple(note for note in plan.notes if note != texts.OPTIMAL_NOTE)
    notes += (texts.OPTIMAL_NOTE,) if plan.status == "optimal" else ()
    return msgspec.structs.replace(plan, notes=notes, certificate=proof.certificate)
