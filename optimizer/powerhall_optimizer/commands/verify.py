"""`powerhall-optimizer verify`: check a plan of one site or of several from its file alone."""

import argparse
import json
import sys

from powerhall.plan.multi_site import MultiSitePlan, read_plans
from powerhall.runtime.command_line import Commands, add_command, add_file
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall_optimizer.verify.multi_site import verify_plans

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "verify",
        run,
        help="recompute every limit, the value and the bound of a plan from plan.json alone",
        description="Recomputes every power limit of every zone, cooling, GPUs, eligibility, residency, gangs, "
        "running jobs, ramps, value and bound at every slot, without any solver; of several sites' plans also that "
        "every job stands in one of them, where it may be. Exit code 1 when anything is broken.",
    )
    add_file(parser, "plan", "plan.json")
    parser.add_argument("--json", action="store_true", help="print the violations as JSON")


def run(args: argparse.Namespace) -> int:
    """Check the plan; print one line per violation."""
    plan = read_plans(args.plan)
    found = verify_plans(plan)
    if args.json:
        listed = [{"kind": v.kind, "where": v.where, "text": v.text} for v in found]
        sys.stdout.write(json.dumps({"plan_id": plan.plan_id, "verified": not found, "violations": listed}) + "\n")
    elif found:
        sys.stdout.write("".join(f"{violation}\n" for violation in found))
        sys.stdout.write(f"{args.plan}: {len(found)} violations\n")
    else:
        parts = plan.plans if isinstance(plan, MultiSitePlan) else (plan,)
        s = parts[0].snapshot
        where = f" at {len(parts)} sites" if isinstance(plan, MultiSitePlan) else ""
        told = f"value {plan.value}, bound {plan.bound}, gap {plan.gap:.2%}"
        if plan.version == 1:
            told = "value and bound of a plan of version 1 are those of a linear model, and are not checked"
        sys.stdout.write(
            f"{args.plan}: verified: {sum(len(p.assignments) for p in parts)} jobs{where} on {s.slots} slots of "
            f"{s.slot_s} s, {told}\n"
        )
    return EXIT_REFUSED if found else EXIT_OK
