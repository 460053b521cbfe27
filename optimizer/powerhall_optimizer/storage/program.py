"""Linear program of all storage units over all slots, by OR-Tools MathOpt: dispatch at prices or for given loads.

Variables per unit: power taken up and delivered per slot, content after every slot, missing content at the end.
Powers are in kW and contents in kW slots, so that coefficients stay near 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from ortools.math_opt.python import mathopt

from powerhall.runtime.errors import PowerhallError
from powerhall.site.storage import keep_factor
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.storage.model import COST_SCALE, SCALE, Ceiling, StorageModel, StorageUnit

__all__ = ["LP_SOLVERS", "Program", "Solution"]

Floats = npt.NDArray[np.float64]
LP_SOLVERS = {
    "glop": mathopt.SolverType.GLOP,
    "highs": mathopt.SolverType.HIGHS,
    "pdlp": mathopt.SolverType.PDLP,
}
_UNIT_W = 1e3
_MISSING = 10.0
"""Weight of a watt that is missing, relative to the dearest watt of the objective."""
_LIMIT = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Solution:
    """Power per unit and slot in W (taken up where negative), the value of a stored J, and the total value."""

    power_w: list[Floats]
    stored_value: list[Floats]
    objective: float


@dataclass(frozen=True, slots=True)
class Program:
    """The linear program of one model; every call of `solve` is on its own."""

    model: StorageModel
    solver: str = "glop"
    ceilings: Sequence[Ceiling] = field(default=())

    def solve(self, price: Floats | None = None, need: Ints | None = None) -> Solution:
        """Return the dispatch of the highest value at `price` (value units per unit of resource and slot, or none).

        `need` [R, T] is the wanted addition to the capacity of each resource, met as far as possible.
        """
        return _Build(self, price, need).solution()


class _Build:
    def __init__(self, program: Program, price: Floats | None, need: Ints | None) -> None:
        self.model = program.model
        self.lp = mathopt.Model()
        self.solver = LP_SOLVERS[program.solver]
        self.gains = [_gains(store, price, self.model.slots) for store in self.model.units]
        self.scale = max(1e-30, max((float(np.abs(g).max()) for pair in self.gains for g in pair), default=0.0))
        short = max((s.short_cost for s in self.model.units), default=0) / COST_SCALE * self.model.slot_s
        self.missing = _MISSING * _UNIT_W * max(1.0, short / self.scale)
        self.goal: list[mathopt.LinearTypes] = []
        self.columns = [self._store(number, store) for number, store in enumerate(self.model.units)]
        if need is not None:
            self._need(need)
        for ceiling in program.ceilings:
            self._ceiling(ceiling)

    def _store(
        self, number: int, store: StorageUnit
    ) -> tuple[list[mathopt.Variable], list[mathopt.Variable], list[mathopt.LinearConstraint]]:
        lp, unit = self.lp, _UNIT_W * self.model.slot_s
        keep = float(keep_factor(store.storage, self.model.slot_s))
        efficiency = float(Fraction(round(store.storage.efficiency * 1_000_000), 1_000_000))
        charge = [lp.add_variable(lb=0.0, ub=store.charge_w / _UNIT_W) for _ in range(self.model.slots)]
        give = [lp.add_variable(lb=0.0, ub=store.discharge_w / _UNIT_W) for _ in range(self.model.slots)]
        held = [lp.add_variable(lb=low / unit, ub=store.high_j / unit) for low in store.low_j[1:]]
        rules = []
        for slot in range(self.model.slots):
            before = keep * held[slot - 1] if slot else keep * store.start_j / unit
            rules.append(
                lp.add_linear_constraint(
                    held[slot] - efficiency * charge[slot] + give[slot] - (before if slot else 0.0)
                    == (0.0 if slot else before)
                )
            )
            if slot and math.isfinite(store.rise_w):
                step = give[slot] - charge[slot] - give[slot - 1] + charge[slot - 1]
                lp.add_linear_constraint(step <= store.rise_w / _UNIT_W)
            if slot and math.isfinite(store.fall_w):
                step = give[slot - 1] - charge[slot - 1] - give[slot] + charge[slot]
                lp.add_linear_constraint(step <= store.fall_w / _UNIT_W)
        short = lp.add_variable(lb=0.0)
        lp.add_linear_constraint(short + held[-1] >= store.end_j / unit)
        gain, load = self.gains[number]
        factor = _UNIT_W / self.scale
        self.goal.append(
            mathopt.fast_sum([float(g) * v for g, v in zip(gain * factor, give, strict=True)])
            - mathopt.fast_sum([float(g) * v for g, v in zip(load * factor, charge, strict=True)])
            - store.short_cost / COST_SCALE * unit / self.scale * short
        )
        return charge, give, rules

    def _need(self, need: Ints) -> None:
        """Penalise the shortage of a resource above everything else."""
        for resource in sorted({e.resource for store in self.model.units for e in store.effects}):
            parts = [
                (number, effect)
                for number, store in enumerate(self.model.units)
                for effect in store.effects
                if effect.resource == resource
            ]
            for slot in range(self.model.slots):
                least = sum(-float(e.load[slot]) * self.model.units[n].charge_w / SCALE for n, e in parts)
                if need[resource, slot] <= least:
                    continue
                missing = self.lp.add_variable(lb=0.0)
                self.goal.append(-self.missing * missing)
                added = [float(e.gain[slot]) / SCALE * self.columns[n][1][slot] for n, e in parts]
                added += [-float(e.load[slot]) / SCALE * self.columns[n][0][slot] for n, e in parts]
                self.lp.add_linear_constraint(
                    mathopt.fast_sum(added) + missing >= float(need[resource, slot]) / _UNIT_W
                )

    def _ceiling(self, ceiling: Ceiling) -> None:
        for slot in range(self.model.slots):
            terms: list[mathopt.LinearTypes] = []
            for number, (given, taken) in ceiling.shares.items():
                terms.append(float(given[slot]) * self.columns[number][1][slot])
                terms.append(-float(taken[slot]) * self.columns[number][0][slot])
            over = self.lp.add_variable(lb=0.0)
            self.goal.append(-self.missing * over)
            self.lp.add_linear_constraint(mathopt.fast_sum(terms) - over <= float(ceiling.most_w[slot]) / _UNIT_W)

    def solution(self) -> Solution:
        self.lp.maximize(mathopt.fast_sum(self.goal))
        result = mathopt.solve(self.lp, self.solver, params=mathopt.SolveParameters(time_limit=_LIMIT))
        if not result.has_primal_feasible_solution():
            raise PowerhallError(f"storage program: {result.termination.reason.name.lower()}")
        values = result.variable_values()
        power = [
            _UNIT_W * np.array([values[g] - values[c] for g, c in zip(give, charge, strict=True)])
            for charge, give, _ in self.columns
        ]
        stored_value = [np.zeros(self.model.slots) for _ in self.columns]
        if result.has_dual_feasible_solution():
            duals = result.dual_values()
            per_j = self.scale / _UNIT_W / self.model.slot_s
            stored_value = [per_j * np.array([duals[rule] for rule in rules]) for _, _, rules in self.columns]
        if not all(math.isfinite(float(watts.sum())) for watts in power):
            raise PowerhallError("storage program: the solver's answer is not finite")
        return Solution(power, stored_value, self.scale * result.objective_value())


def _gains(store: StorageUnit, price: Floats | None, slots: int) -> tuple[Floats, Floats]:
    """Return the gain per W delivered and the cost per W taken up, per slot in value units."""
    gain = -store.discharge_cost / COST_SCALE
    load = store.charge_cost / COST_SCALE + np.zeros(slots)
    if price is None:
        return gain, load
    for effect in store.effects:
        gain = gain + price[effect.resource] * effect.gain / SCALE
        load = load + price[effect.resource] * effect.load / SCALE
    return gain, load
