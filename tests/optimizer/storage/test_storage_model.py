"""The storage model: lines within the true curves, a bound that is never too low, programs that agree."""

import math
import random
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from powerhall.jobs import Job
from powerhall.physics.cooling import hall_load
from powerhall.plan.plan import Snapshot
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.site.storage import trajectory
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.problem.arrays import PriceCertificate
from powerhall_optimizer.problem.meter import slot_power_w
from powerhall_optimizer.problem.site_problem import BuiltProblem, build_problem
from powerhall_optimizer.storage.best_response import best_power, grid_of
from powerhall_optimizer.storage.model import COST_SCALE, SCALE, StorageModel, build_storage_model, with_dispatch
from powerhall_optimizer.storage.program import LP_SOLVERS, Program
from powerhall_optimizer.verify.capacities import Capacities
from powerhall_optimizer.verify.curves import ONE
from powerhall_optimizer.verify.meter import SiteMeter
from powerhall_optimizer.verify.storage_terms import STORED_VALUE_SCALE, most_value, storage_terms

START_S = 1_700_000_100
SITE = """
[site]
name = "dam"
power_limit = "160 kW"
losses = {fixed = "1 kW", linear = 0.03, quadratic_per_w = 4e-7}

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
liquid_fraction = 0.7
modes = [{name = "full", gpu_power = "1.2 kW", speed = 1.0}, {name = "low", gpu_power = "0.7 kW", speed = 0.75}]

[[halls]]
name = "a"
rows = [{name = "r", racks = [{node_type = "h100", count = 2, nodes = 4}]}]
cooling = [{kind = "tower_chiller", capacity = "90 kW", supply_temp = "18 degC", cop = 5.0, fan_power = "4 kW"}]

[[halls]]
name = "b"
rows = [{name = "r", racks = [{node_type = "h100", count = 2, nodes = 4}]}]
cooling = [
  {kind = "dry_cooler", capacity = "70 kW", serves = "liquid", supply_temp = "42 degC", fan_power = "5 kW"},
  {kind = "fixed", capacity = "32 kW", serves = "air", cop = 4.0},
]

[[batteries]]
name = "bess"
energy = "60 kWh"
charge_power = "30 kW"
discharge_power = "40 kW"

[[tanks]]
name = "tank"
hall = "a"
energy = "40 kWh"
charge_power = "20 kW"
discharge_power = "25 kW"
start_share = 0.6
loss_per_h = 0.02

[[loops]]
name = "loop"
hall = "b"
serves = "liquid"
heat_capacity = "6 m3"
max_supply = "W45"
overshoot = "15 kW"
"""


def snapshot_of(folder, jobs: int, slots: int, seed: int = 0, text: str = SITE) -> Snapshot:
    (folder / "site.toml").write_text(text)
    site, _ = read_site(folder / "site.toml")
    draw = random.Random(seed)
    queue = tuple(
        Job(f"j{i}", draw.choice([8, 16, 32]), draw.randint(1, slots) * 200.0, START_S, weight=draw.choice([1.0, 3.0]))
        for i in range(jobs)
    )
    dry = tuple(30.0 + 5.0 * math.sin(slot / slots * 6) for slot in range(slots))
    price = tuple(40.0 + 30.0 * (slot % 7) for slot in range(slots))
    return Snapshot(START_S, START_S, 300, slots, site, queue, dry, tuple(d - 9 for d in dry), price)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> tuple[Snapshot, BuiltProblem, StorageModel]:
    snapshot = snapshot_of(tmp_path_factory.mktemp("model"), 12, 48)
    built = build_problem(snapshot)
    return snapshot, built, build_storage_model(snapshot, built)


def some_dispatch(model: StorageModel, seed: int) -> tuple[tuple[int, ...], ...]:
    """Powers at random, cut to the limits of the units; one that would end too empty charges in its last slots."""
    rng = np.random.default_rng(seed)
    wishes = [rng.uniform(-s.charge_w, s.discharge_w, model.slots) * (rng.random() < 0.8) for s in model.units]
    late = [np.where(np.arange(model.slots) < model.slots // 2, w, -abs(w)) for w in wishes]
    found = [model.in_whole_watts([*wishes[:k], w, *wishes[k + 1 :]])[k] for k, w in enumerate(late)]
    return tuple(w if meets_end_content(model, k, w) else model.idle()[k] for k, w in enumerate(found))


def meets_end_content(model: StorageModel, number: int, watts) -> bool:
    store = model.units[number]
    return trajectory(store.storage, store.start_j, watts, model.slot_s)[-1] >= store.low_j[-1]


@given(st.integers(0, 10_000))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_what_the_lines_allow_holds_for_the_true_curves(case, seed):
    """Fill the changed capacities with IT power: true heat and true power at the meter stay within their limits."""
    snapshot, built, model = case
    rng = random.Random(seed)
    dispatch = some_dispatch(model, seed)
    opened = with_dispatch(built, model, dispatch).problem
    if (built.problem.capacity + model.added(dispatch, built.problem.resources) < 0).any():
        return  # more charging than the idle site leaves room for
    names = {name: number for number, name in enumerate(opened.resource_names)}
    conditions = SiteConditions(snapshot)
    slopes = {choice.hall: o for o, choice in enumerate(built.choices)}
    slot = rng.randrange(model.slots)
    left = {name: float(opened.capacity[number, slot]) for name, number in names.items()}
    added: dict[str, float] = {}
    for hall in rng.sample(["a", "b"], 2):
        uses = {opened.resource_names[r]: amount for r, amount in opened.uses_of(slopes[hall])}
        curve = ["a", "b"].index(hall)
        gpus = uses.pop(f"{hall}.h100.gpus")
        watts = gpus * (built.choices[slopes[hall]].gpu_power_w - 250.0)
        most = min(
            [left[name] / (amount / watts) for name, amount in uses.items()] + [left[f"{hall}.h100.gpus"] * 950.0]
        )
        idle = slot_power_w(opened.curves, curve, slot, [0])
        while most >= 1 and slot_power_w(opened.curves, curve, slot, [math.ceil(most)]) - idle > left["dam.facility_w"]:
            most -= 1 + most / 1000
        added[hall] = float(max(0, int(most)))
        left["dam.facility_w"] -= slot_power_w(opened.curves, curve, slot, [int(added[hall])]) - idle
        for name, amount in uses.items():
            left[name] -= added[hall] * amount / watts
    stored = {"a": {"all": float(dispatch[1][slot])}, "b": {"liquid": float(dispatch[2][slot])}}
    meter = -float(dispatch[0][slot])
    for hall in snapshot.site.halls:
        base = conditions.hall_base(hall)
        extra = added[hall.zone]
        load = hall_load(
            hall, base.liquid_w + 0.7 * extra, base.air_w + 0.3 * extra, conditions.weather[slot], stored[hall.zone]
        )
        assert all(load.heat_w[m] <= load.capacity_w[m] + 0.5 for m in load.heat_w)
        meter += load.facility_power_w
    assert meter <= 160e3 + 0.5


def worth_of(model: StorageModel, dispatch, price) -> float:
    added = np.zeros_like(price)
    for store, watts in zip(model.units, dispatch, strict=True):
        for effect in store.effects:
            power = np.array(watts, float)
            added[effect.resource] += (effect.gain * np.maximum(power, 0) - effect.load * np.maximum(-power, 0)) / SCALE
    return float((price * added).sum() - model.cost(dispatch))


def stored_bound(case, prices: PriceCertificate, worth) -> float:
    """What the checker has as the most that all units gain at these prices, lines touching the idle halls' curves."""
    snapshot, built, _ = case
    capacities = Capacities(snapshot)
    meter = SiteMeter(capacities, {})
    rows = dict(zip(built.problem.resource_names, prices.price.tolist(), strict=True))
    scale = 1 << prices.scale_bits
    total = Fraction(0)
    for terms in storage_terms(snapshot, capacities, built.unit_usd):
        paid = zip(meter.prices_of(rows), meter.earned(terms.storage), strict=True)
        saved = [Fraction(lam * part, scale * ONE) for lam, part in paid]
        total += most_value(terms, rows, scale, worth.get(terms.storage.name), saved)
    return float(total)


def prices_of(case, seed: int) -> PriceCertificate:
    rng = np.random.default_rng(seed)
    shape = case[1].problem.capacity.shape
    return PriceCertificate((rng.exponential(3e5, shape) * (rng.random(shape) < 0.5)).astype(np.int64), 10)


@given(st.integers(0, 10_000))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_no_dispatch_exceeds_the_bound_for_any_certificate(case, seed):
    model, prices = case[2], prices_of(case, seed)
    price = prices.price / 2.0**prices.scale_bits
    rng = random.Random(seed)
    scale = 2**prices.scale_bits * STORED_VALUE_SCALE
    wild = {s.storage.name: [rng.randint(-scale, scale) // 100 for _ in range(model.slots)] for s in model.units}
    most = max(worth_of(model, some_dispatch(model, seed + i), price) for i in range(5))
    assert stored_bound(case, prices, wild) >= most - 1e-6 * abs(most)
    assert stored_bound(case, prices, {}) >= most - 1e-6 * abs(most)


@pytest.mark.parametrize("seed", range(6))
def test_the_dual_of_the_program_proves_its_optimum(case, seed):
    model, prices = case[2], prices_of(case, seed)
    price = prices.price / 2.0**prices.scale_bits
    answer = Program(model).solve(price)
    scale = 2**prices.scale_bits * STORED_VALUE_SCALE
    worth = {
        s.storage.name: [round(v * scale) for v in row] for s, row in zip(model.units, answer.stored_value, strict=True)
    }
    assert answer.objective * (1 - 1e-6) <= stored_bound(case, prices, worth) <= answer.objective * 1.1
    dispatch = model.in_whole_watts(answer.power_w)
    assert model.meets_end_content(dispatch)
    assert worth_of(model, dispatch, price) == pytest.approx(answer.objective, rel=1e-3)


def test_every_solver_of_the_program_finds_the_same_value(case):
    price = prices_of(case, 3).price / 2.0**10
    found = [Program(case[2], name).solve(price).objective for name in LP_SOLVERS]
    assert found == pytest.approx([found[0]] * len(found), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_dynamic_programming_comes_close_to_the_optimum_of_the_program(case, seed):
    model, price = case[2], prices_of(case, seed).price / 2.0**10
    best = Program(model).solve(price).objective
    near = sum(best_power(grid_of(store, model), price)[1] for store in model.units)
    assert best * 0.85 <= near <= best * 1.1


def test_whole_powers_keep_every_store_within_its_limits(case):
    model = case[2]
    for seed in range(20):
        for store, watts in zip(model.units, some_dispatch(model, seed), strict=True):
            held = trajectory(store.storage, store.start_j, watts, model.slot_s)
            assert all(low <= state <= store.high_j for low, state in zip(store.low_j, held, strict=True))
            assert all(-store.charge_w <= power <= store.discharge_w for power in watts)


def test_an_idle_dispatch_is_always_feasible_and_costs_the_missing_end_content(case):
    snapshot, built, _ = case
    empty = msgspec.structs.replace(snapshot, stored_j={"bess": 0.0, "tank": 0.0})
    model = build_storage_model(empty, built)
    assert model.meets_end_content(model.idle())
    assert model.cost(model.idle()) > 0
    full = build_storage_model(msgspec.structs.replace(snapshot, stored_j={"tank": 144e6}), built)
    assert full.cost(full.idle()) == 0


def optimum(built: BuiltProblem, model: StorageModel) -> float:
    """The exact optimum of jobs and stores together, as a mixed-integer program by HiGHS through scipy."""
    problem, slots = built.problem, model.slots
    choices = [(j, o, s) for j in range(problem.jobs) for o in problem.options_of(j)
               for s in range(int(problem.option_earliest[o]), int(problem.option_latest[o]) + 1)]  # fmt: skip
    size = len(choices) + len(model.units) * (3 * slots + 1)
    cost, upper, lower = np.zeros(size), np.full(size, np.inf), np.zeros(size)
    rows = problem.resources * slots + problem.jobs + len(model.units) * (slots + 1)
    matrix, low, high = lil_matrix((rows, size)), np.full(rows, -np.inf), np.zeros(rows)
    high[: problem.resources * slots] = problem.capacity.ravel()
    high[problem.resources * slots : problem.resources * slots + problem.jobs] = 1.0
    for column, (job, option, start) in enumerate(choices):
        cost[column] = -(problem.value(job, option, start) - int(problem.job_wait_value[job]))
        upper[column] = 1.0
        matrix[problem.resources * slots + job, column] = 1.0
        stop = min(slots, start + int(problem.option_duration[option]))
        for resource, amount in problem.uses_of(option):
            for slot in range(start, stop):
                matrix[resource * slots + slot, column] = amount
    at, row = len(choices), problem.resources * slots + problem.jobs
    for store in model.units:
        keep = 1.0 if store.storage.loss_per_h == 0 else (1 - store.storage.loss_per_h) ** (model.slot_s / 3600)
        take, give, held, short = at, at + slots, at + 2 * slots, at + 3 * slots
        upper[take : take + slots], upper[give : give + slots] = store.charge_w, store.discharge_w
        lower[held : held + slots], upper[held : held + slots] = store.low_j[1:], store.high_j
        cost[take : take + slots] = store.charge_cost / COST_SCALE
        cost[give : give + slots] = store.discharge_cost / COST_SCALE
        cost[short] = store.short_cost / COST_SCALE
        for slot in range(slots):
            matrix[row + slot, held + slot] = 1.0
            if slot:
                matrix[row + slot, held + slot - 1] = -keep
            matrix[row + slot, take + slot] = -model.slot_s * store.storage.efficiency
            matrix[row + slot, give + slot] = model.slot_s
            low[row + slot] = high[row + slot] = 0.0 if slot else keep * store.start_j
        matrix[row + slots, short], matrix[row + slots, held + slots - 1] = 1.0, 1.0
        low[row + slots], high[row + slots] = store.end_j, np.inf
        for effect in store.effects:
            for slot in range(slots):
                matrix[effect.resource * slots + slot, give + slot] -= effect.gain[slot] / SCALE
                matrix[effect.resource * slots + slot, take + slot] += effect.load[slot] / SCALE
        at, row = at + 3 * slots + 1, row + slots + 1
    whole = np.zeros(size)
    whole[: len(choices)] = 1
    done = milp(
        cost,
        integrality=whole,
        bounds=Bounds(lower, upper),
        constraints=LinearConstraint(matrix.tocsr(), low, high),
        options={"time_limit": 60, "mip_rel_gap": 1e-6},
    )
    assert done.status == 0, done.message
    return float(-done.fun) + float(problem.job_wait_value.sum())


@pytest.mark.parametrize("seed", range(3))
def test_plans_lie_below_the_exact_optimum_with_stores_and_bounds_above_it(tmp_path, seed):
    tight = SITE.replace('power_limit = "160 kW"', 'power_limit = "2 MW"').replace('"90 kW"', '"60 kW"')
    tight = tight.replace('"70 kW"', '"50 kW"')  # cooling binds, not the meter, whose curves the program does not have
    snapshot = snapshot_of(tmp_path, 8, 12, seed, tight)
    built = build_problem(snapshot)
    best = optimum(built, build_storage_model(snapshot, built))
    plan = make_plan(snapshot, RoundSettings(workers=1), 1.0, created_s=START_S, log=Log(quiet=True))
    assert plan.status == "feasible"
    room = 1e-5 * abs(best)
    assert plan.value <= best + room
    assert plan.bound >= best - room
    assert plan.value >= 0.85 * best
