"""The independent checker: checks a plan from plan.json alone, with the true curves; no figure of the plan is trusted.

Each kind of limit has a function that yields its violations: `jobs`, `nodes`, `sheds`, `power`, `storage`, `plants`.
"""

from collections import Counter
from collections.abc import Iterator

from powerhall.plan.plan import Plan
from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer.verify.case import Check, PlanCase, Violation, claims
from powerhall_optimizer.verify.gang_blocks import level_checks
from powerhall_optimizer.verify.gpu_shares import SHARE_CHECKS
from powerhall_optimizer.verify.jobs import JOB_CHECKS
from powerhall_optimizer.verify.loads import loads_of, plan_loads
from powerhall_optimizer.verify.nodes import NODE_CHECKS
from powerhall_optimizer.verify.numbers import wrong_numbers
from powerhall_optimizer.verify.period_budgets import budget_checks
from powerhall_optimizer.verify.plants import plant_checks
from powerhall_optimizer.verify.power import cooling_checks, power_checks, ramp_checks, zone_checks
from powerhall_optimizer.verify.sheds import shed_checks
from powerhall_optimizer.verify.storage import storage_checks
from powerhall_optimizer.verify.value import value_and_bound

__all__ = ["Violation", "verify_plan"]


def _identity(case: PlanCase) -> Iterator[Violation]:
    digest = case.plan_id
    if case.plan.plan_id != digest:
        yield Violation(
            "identity", "plan_id", f"{case.plan.plan_id[:12]}... is not the hash of the snapshot {digest[:12]}..."
        )


def _site(case: PlanCase) -> Iterator[Violation]:
    """Every zone and node of the site occurs once, racks have known node types, and names are those of the keys."""
    racks = list(case.site.racks())
    zones = [hall.zone for hall in case.site.halls]
    zones += [row.zone for hall in case.site.halls for row in hall.rows] + [rack.zone for rack in racks]
    for names, text in ((zones, "is a zone twice"), ([n for r in racks for n in r.nodes], "is a node twice")):
        yield from (Violation("site", name, text) for name, count in Counter(names).items() if count > 1)
    for rack in racks:
        if rack.node_type not in case.site.node_types:
            yield Violation("site", rack.zone, f"has nodes of the unknown type {rack.node_type}")
    called = [(key, kind.name) for key, kind in case.site.node_types.items()]
    called += [(key, entry.name) for key, entry in case.site.job_classes.items()]
    yield from (Violation("site", key, f"is called {name!r}") for key, name in called if name != key)
    yield from (Violation("site", *broken) for broken in level_checks(case.site))


def _value(case: PlanCase) -> Iterator[Violation]:
    """Value and bound follow from the plan; in version 1 both are those of a linear model, and prove nothing."""
    if case.plan.version == 1:
        return
    try:
        value, bound = value_and_bound(case.plan)
    except (ValueError, ArithmeticError, PowerhallError) as error:
        yield Violation("certificate", "plan", str(error))
        return
    if value != case.plan.value:
        yield Violation("value", "plan", f"is {case.plan.value} in the plan; its assignments give {value}")
    if value > bound:
        yield Violation("bound", "plan", f"has value {value}, more than the {bound} that its certificate proves")
    if bound > case.plan.bound:
        yield Violation("bound", "plan", f"is {case.plan.bound} in the plan; its certificate proves only {bound}")
    if value == case.plan.value and value <= bound <= case.plan.bound:
        yield from claims(case.plan, "plan")


_CHECKS: tuple[Check, ...] = (_identity, *JOB_CHECKS, *NODE_CHECKS, *SHARE_CHECKS, budget_checks)


def verify_plan(plan: Plan) -> list[Violation]:
    """Return all violations of a plan; an empty list is a verified plan.

    Nodes without telemetry count at their maximum. Where they and what is held alone exceed a limit, or idle nodes a
    limit less its margin, no plan can hold it: such a zone may not get additional load.
    """
    if wrong := [Violation(*broken) for broken in wrong_numbers(plan)]:
        return wrong
    case = PlanCase(plan)
    plan = case.plan
    if broken_site := list(_site(case)):
        return broken_site
    found = [violation for check in _CHECKS for violation in check(case)]
    if lacking := storage_checks(plan, None):
        return found + [Violation(*broken) for broken in lacking]
    loads = plan_loads(plan)
    s = plan.snapshot
    silent = loads_of(s, ()) if s.stale_nodes or s.held or s.margin_w else None
    found += power_checks(case, loads, silent)
    found += cooling_checks(case, loads, silent)
    found += ramp_checks(case)
    found += zone_checks(case, loads)
    found += [Violation("plants", *broken) for broken in plant_checks(plan, loads)]
    found += [Violation(*broken) for broken in storage_checks(plan, loads)]
    found += shed_checks(case)
    return found + (list(_value(case)) if not found else [])
