"""Arrays of the kernels, grouped into named tuples, which numba can pass, so that argument lists stay short.

Sizes: J jobs, O options, P profiles, U uses (pairs of profile and resource), R resources, T slots, H halls, C columns.
Amounts and capacities are int64 in the resource's own unit: nodes, or W for power and heat. Value is in the value units
of the problem; those arrays are float64, which is exact because every total stays below 2**52. A price is in value
units per unit of the resource and slot. An option, job or slot is its index; option -1 and start -1 mean waiting.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.meter import MeterCurves

__all__ = [
    "BONUS",
    "DEADLINE",
    "DELAY_COST",
    "LATE_COST",
    "LATE_FINE",
    "LOWEST",
    "PLANNED_START",
    "RATE",
    "SHIFT_COST",
    "WAIT_VALUE",
    "Columns",
    "FillRule",
    "Flags",
    "Floats",
    "GuidePrices",
    "InsertionScratch",
    "PriceBasis",
    "PricedDecisions",
    "ProblemArrays",
    "WorkingSchedule",
]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LOWEST = -1e300
"""Below every value; stands for "not possible" (infinity is not allowed where operations may be reordered)."""

WAIT_VALUE, DELAY_COST, DEADLINE, LATE_COST, LATE_FINE, PLANNED_START, SHIFT_COST = range(7)
"""Columns of `ProblemArrays.job_value`."""

RATE, BONUS = range(2)
"""Columns of `ProblemArrays.option_value`."""


class ProblemArrays(NamedTuple):
    """The presolved problem. Ranges are given by pointers: job j owns options job_options[j] .. job_options[j + 1] - 1.

    Usage is stored per *profile*, not per option: an option uses `option_multiple` times its profile (see `presolve`).
    """

    job_options: Ints  # [J + 1] pointers into the options
    job_value: Floats  # [J, 7] wait value, delay cost per slot, deadline slot, late cost per slot, late fine, planned
    # start slot (-1: none), shift cost per slot; the terms of `problem.arrays`
    option_profile: Ints  # [O]
    option_multiple: Ints  # [O] whole number >= 1
    option_hall: Ints  # [O]
    option_duration: Ints  # [O] slots; may reach behind the horizon
    option_earliest: Ints  # [O] first start slot
    option_latest: Ints  # [O] last start slot, < T
    option_value: Floats  # [O, 2] rate per slot inside the horizon, bonus
    profile_uses: Ints  # [P + 1] pointers into the two arrays below
    profile_resource: Ints  # [U]
    profile_amount: Ints  # [U] amount per slot of one unit of the profile
    curves: MeterCurves  # how the amounts left at a meter follow from those of pools


class WorkingSchedule(NamedTuple):
    """A feasible schedule that a kernel changes in place.

    Invariant: `free` is capacity less the usage of the decisions in `option` and `start`, and nowhere negative.
    """

    option: Ints  # [J] option of each job, -1 while it waits
    start: Ints  # [J] start slot, -1 while it waits
    free: Ints  # [R, T] amount left


class Columns(NamedTuple):
    """The options that are priced: one for each set of options of a job that are equal under common prices."""

    pointer: Ints  # [J + 1] job j owns the columns pointer[j] .. pointer[j + 1] - 1
    option: Ints  # [C]


class PricedDecisions(NamedTuple):
    """Output of pricing: the best decision of every job at the prices, and the total usage of these decisions.

    `usage_change` [R, T + 1] holds differences from slot to slot, so that a decision costs two additions per resource
    whatever its duration; a cumulative sum over slots turns it into usage.
    """

    gain: Floats  # [J] value less price, at least the wait value
    option: Ints  # [J]
    start: Ints  # [J]
    usage_change: Floats  # [R, T + 1]
    column_gain: Floats  # [C] best value less price of each column


class PriceBasis(NamedTuple):
    """Inputs of fill prices."""

    price: Floats  # [R, T] Lagrangian prices
    energy: Floats  # [P, T + 1] prefix sums over slots of the energy cost of one unit of each profile
    capacity: Floats  # [R, T] capacity, at least 1 (a divisor)


class FillRule(NamedTuple):
    """How a price follows the fill: scale * price * clip(1 + slope * (fill - level), 0.05, 4)."""

    level: float  # fill (0 .. 1) at which the price is neither raised nor lowered
    slope: float  # relative change of the price per unit of fill
    scale: float  # 0 takes only energy into account


class GuidePrices(NamedTuple):
    """The prices at which jobs are inserted, and scratch space to derive them."""

    prefix: Floats  # [P, T + 1] prefix sums over slots of the price of one unit of each profile, energy included
    resource_price: Floats  # [R, T] scratch


class InsertionScratch(NamedTuple):
    """Space that inserting a job needs, allocated once."""

    upper: Floats  # [most options of a job] bound on each option's value less price
    blocked: Flags  # [T] slots in which an option does not fit
