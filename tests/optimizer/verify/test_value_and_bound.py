"""Value and bound: a difference of one is refused, prices are checked, and no plan's value exceeds the bound."""

import itertools
import random
import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from powerhall.physics.cooling import hall_load
from powerhall.plan.plan import Certificate, Plan, write_plan
from powerhall_optimizer.verify.bound import PricedSite, job_value, read_prices
from powerhall_optimizer.verify.capacities import Capacities
from powerhall_optimizer.verify.meter import SiteMeter
from powerhall_optimizer.verify.options import SiteOptions, job_terms, run_terms, unit_usd
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.value import value_and_bound
from rigs.claims import with_claims
from rigs.random_sites import random_certificate, random_snapshot, with_planned
from rigs.stores import SITE as STORE_SITE
from rigs.stores import STORES, plan_of, snapshot_of

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def proven(plan) -> Plan:
    """The plan with prices at random, and their bound."""
    names = list(Capacities(plan.snapshot).amounts)
    draw = random.Random(1)
    prices = {name: tuple(draw.randint(1, 10**8) for _ in range(plan.snapshot.slots)) for name in names}
    return with_claims(replace(plan, certificate=Certificate(1 << 12, prices), status="feasible"))


def kinds(plan: Plan) -> set[str]:
    return {violation.kind for violation in verify_plan(plan)}


def priced(plan: Plan, **fields: object) -> Plan:
    """The plan with another certificate."""
    return replace(plan, certificate=replace(plan.certificate, **fields))


def test_a_value_or_a_bound_that_is_off_by_one_is_refused(proven):
    assert (proven.value, proven.bound) == value_and_bound(proven)
    assert kinds(replace(proven, value=proven.value + 1)) == {"value"}
    assert kinds(replace(proven, value=proven.value - 1)) == {"value"}
    assert kinds(replace(proven, bound=proven.bound - 1)) == {"bound"}


@pytest.mark.parametrize("gap", [0.0, 1e-6, -1.0, float("nan")])
def test_a_gap_that_value_and_bound_do_not_give_is_refused(proven, gap):
    assert proven.gap > 1e-6
    assert kinds(replace(proven, gap=gap)) == {"gap"}


def test_a_plan_below_its_bound_is_not_optimal(proven):
    assert kinds(replace(proven, status="optimal")) == {"status"}


def test_every_price_of_the_certificate_counts(proven):
    """One price so high that the capacity of its slot alone costs more than the plan's value; and a price left out."""
    prices = proven.certificate.prices
    for name, row in prices.items():
        slot = row.index(max(row))
        tampered = (*row[:slot], row[slot] + 2 * proven.bound * proven.certificate.scale, *row[slot + 1 :])
        assert value_and_bound(priced(proven, prices={**prices, name: tampered}))[1] > proven.bound
        assert kinds(priced(proven, prices={**prices, name: tampered})) == {"bound"}
        without = {other: prices[other] for other in prices if other != name}
        assert value_and_bound(priced(proven, prices=without))[1] != proven.bound


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {"scale": 3},
        lambda c: {"scale": 0},
        lambda c: {"prices": {**c.prices, "nowhere.it_w": next(iter(c.prices.values()))}},
        lambda c: {"prices": {name: row[1:] for name, row in c.prices.items()}},
        lambda c: {"prices": {name: (-1, *row[1:]) for name, row in c.prices.items()}},
        lambda c: {"prices": {f"{name}//0": row for name, row in c.prices.items()}},
        lambda c: {"prices": {f"{name}//two": row for name, row in c.prices.items()}},
    ],
    ids=["scale 3", "scale 0", "unknown name", "a slot short", "negative", "multiples of 0", "multiples of a word"],
)
def test_a_certificate_that_fits_nothing_is_refused(proven, change):
    assert kinds(priced(proven, **change(proven.certificate))) == {"certificate"}


def test_prices_beyond_64_bits_prove_the_same_bound(proven):
    """Prices and their scale, both 2**70 times as large, are the same prices: Python integers take over."""
    c = proven.certificate
    large = Certificate(c.scale << 70, {name: tuple(p << 70 for p in row) for name, row in c.prices.items()})
    assert value_and_bound(replace(proven, certificate=large)) == (proven.value, proven.bound)


@pytest.mark.parametrize("share", [1e9, 1e18, 1e30])
def test_an_objective_beyond_64_bits_is_computed_and_refused(proven, change, share):
    """Delay that costs far more than a job's value: the value differs from the plan's."""
    objective = replace(proven.snapshot.objective, delay_share=share)
    late = [replace(job, deadline_s=1.0 + job.submit_s) for job in proven.snapshot.jobs]
    value, bound = value_and_bound(change(proven, objective=objective, jobs=tuple(late)))
    assert value < -(share * 1000)
    assert bound >= 0
    assert "value" in kinds(change(proven, objective=objective))


def test_without_a_certificate_every_job_gets_its_best(proven):
    value, bound = value_and_bound(replace(proven, certificate=None))
    assert value == proven.value
    capacities = Capacities(proven.snapshot)
    options = SiteOptions(proven.snapshot, capacities, unit_usd(proven.snapshot))
    [prices] = read_prices(None, {"": capacities.amounts}, proven.snapshot.slots)
    terms = [job_terms(proven.snapshot, job, unit_usd(proven.snapshot), None, None) for job in proven.snapshot.jobs]
    gains = [PricedSite(options, prices).best(j, t, None) for j, t in zip(proven.snapshot.jobs, terms, strict=True)]
    assert bound == sum(max(t.wait, gain or t.wait) for t, gain in zip(terms, gains, strict=True))


@pytest.mark.parametrize("seed", range(25))
def test_no_choice_of_options_within_the_capacities_is_worth_more_than_the_bound(seed):
    """Every combination of decisions of three jobs over two slots, beside the bound of random prices."""
    draw = random.Random(seed)
    snapshot = random_snapshot(draw, slots=2, jobs=3)
    site = replace(snapshot.site, storages=())
    [s] = with_planned(draw, [replace(snapshot, site=site)])
    capacities = Capacities(s)
    options = SiteOptions(s, capacities, unit_usd(s))
    certificate = random_certificate(draw, list(capacities.amounts), [], s.slots)
    [prices] = read_prices(certificate, {"": capacities.amounts}, s.slots)
    priced_site = PricedSite(options, prices)
    planned = {entry.job_id: entry for entry in s.planned}
    total, decisions = prices.of_capacity(capacities.amounts, SiteMeter(capacities, {})), []
    for job in s.jobs:
        last = planned.get(job.job_id)
        terms = job_terms(s, job, unit_usd(s), last, None)
        gain = priced_site.best(job, terms, last)
        total += max(terms.wait * prices.scale, terms.wait * prices.scale if gain is None else gain)
        found = [(terms.wait, {})]
        for option in options.of(job):
            run = run_terms(s, job, terms, option.speed, options.is_moved(job, option, last))
            for start in range(terms.first, min(terms.last, terms.deadline - run[0]) + 1):
                value, stop = job_value(terms, np.array(run), start, s.slots)
                paid = option.energy * sum(options.tariff[start:stop])
                usage = {(name, t): amount for name, amount in option.uses.items() for t in range(start, stop)}
                found.append((int(value) - paid, usage))
        decisions.append(found)
    best = max(
        sum(value for value, _ in choice) for choice in itertools.product(*decisions) if fits(choice, capacities)
    )
    assert best <= total // prices.scale


def fits(choice, capacities: Capacities) -> bool:
    used: dict[tuple[str, int], int] = {}
    for _, usage in choice:
        for key, amount in usage.items():
            used[key] = used.get(key, 0) + amount
    if any(amount > capacities.amounts[name][t] for (name, t), amount in used.items()):
        return False
    s = capacities.snapshot
    limit_w = capacities.limits_w.get(s.site.name)
    for t in range(s.slots) if limit_w is not None else ():
        total_w = 0.0
        for idle in capacities.halls:
            liquid_w, air_w = idle.liquid_w, idle.air_w
            for kind in idle.kinds:
                pool = capacities.pools[idle.hall.zone, kind]
                it_w = used.get((capacities.meter_name(pool), t), 0)
                liquid_w += pool.kind.liquid_fraction * it_w
                air_w += (1 - pool.kind.liquid_fraction) * it_w
            total_w += hall_load(idle.hall, liquid_w, air_w, capacities.air[t]).facility_power_w
        if total_w > max(limit_w[t], capacities.idle_meter_w()[t]) + 0.5:
            return False
    return True


def test_the_package_of_the_checker_stands_alone(plan, root, tmp_path):
    """Copied by itself it checks plans, with and without stores, on powerhall core, numpy and msgspec."""
    package = tmp_path / "alone" / "powerhall_optimizer"
    shutil.copytree(root / "optimizer/powerhall_optimizer/verify", package / "verify")
    (package / "__init__.py").write_text("")
    stored = plan_of(snapshot_of(STORE_SITE + STORES, tmp_path), 1.0)
    files = []
    for number, one in enumerate((plan, replace(plan, value=plan.value + 1), stored)):
        files.append(str(tmp_path / f"{number}.json"))
        write_plan(one, files[-1])
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "before = set(sys.modules)\n"
        "from powerhall.plan.plan import read_plan\n"
        "from powerhall_optimizer.verify import multi_site\n"
        "from powerhall_optimizer.verify.plan import verify_plan\n"
        "print([[v.kind for v in verify_plan(read_plan(path))] for path in sys.argv[2:]])\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        # msgspec takes typing_extensions where it is there; sysconfig, which zoneinfo asks, has its data in a module
        "foreign = ('typing_extensions', '_distutils_hack', '_sysconfigdata')\n"
        "print(sorted(name for name in new if not name.startswith(foreign)))\n"
        "print(multi_site.__file__.startswith(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "alone"), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "[[], ['value'], []]",
        "['msgspec', 'numpy', 'powerhall', 'powerhall_optimizer']",
        "True",
    ]
