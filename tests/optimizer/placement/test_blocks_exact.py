"""Gangs within blocks on small sites: the plan is the optimum, and a placement is found whenever there is one.

The optimum comes from a model of nodes and blocks that shares nothing with the optimizer (`rigs.exact_blocks`).
`PROVE` in the environment is the number of sites.
"""

import os
import random

import numpy as np
import pytest

from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.placement.place import place
from powerhall_optimizer.planning.planner import make_plan, prepare_site
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.verify.plan import verify_plan
from rigs.exact_blocks import block_site, exact_runs

SEEDS = range(int(os.environ.get("PROVE", "50")))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_plan_is_the_optimum_and_the_starts_of_the_optimum_find_their_blocks(seed):
    snapshot = block_site(random.Random(seed))
    best, runs = exact_runs(snapshot)
    prepared = prepare_site(snapshot, RoundSettings(), Log(quiet=True))
    built, retained = prepared.built, prepared.retained.schedule
    wanted = Schedule(retained.option.copy(), retained.start.copy())
    for run in runs:
        (option,) = [o for o in built.problem.options_of(run.job) if built.choices[o].hall == run.hall]
        wanted.option[run.job], wanted.start[run.job] = option, run.start
    placed = place({"s1": prepared.conditions}, built, wanted, retained)
    assert np.array_equal(placed.schedule.option, wanted.option)
    assert np.array_equal(placed.schedule.start, wanted.start)
    plan = make_plan(snapshot, RoundSettings(workers=1), 0.2, created_s=0, log=Log(quiet=True))
    assert verify_plan(plan) == []
    assert plan.value == best <= plan.bound
