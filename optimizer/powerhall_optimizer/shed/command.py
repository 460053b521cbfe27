"""`powerhall-optimizer shed`: brings the site's power down now, without solving."""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from powerhall.errors import Rejected
from powerhall.extras import EXIT_OK, EXIT_REFUSED
from powerhall.plan import Plan, write_plan
from powerhall.store import Store, open_store
from powerhall.units import format_power, parse_duration, parse_power
from powerhall_optimizer.leases.budgets import lease_budgets
from powerhall_optimizer.leases.caps import grant_leases, needs, safe_caps_w
from powerhall_optimizer.leases.command import checked_plan, read_site_key
from powerhall_optimizer.leases.publish import publish_leases
from powerhall_optimizer.ledger import Ledger as LeaseLedger
from powerhall_optimizer.schedulers.base import PlanWriter
from powerhall_optimizer.shed.act import shed_plan
from powerhall_optimizer.shed.ladder import Ladder, ladder

__all__ = ["Outcome", "Shedder", "add_parser", "read_target"]

_TEXT = """Brings the site to a power at the meter, now, without solving: the first rungs of the plan's ladder are taken
(lower power modes, then pause what can checkpoint, then stop the lowest weight; jobs that may not be preempted are
never touched), leases with the lower caps go out at once, and the scheduler gets the shed plan.

examples:
  powerhall-optimizer shed --show --plan plan.json                     the ladder, with megawatts per rung
  powerhall-optimizer shed --by 30% --plan plan.json --store URL --site-key site.key --ledger ledger.json
  powerhall-optimizer shed --to 350MW --plan plan.json --store URL --site-key site.key --ledger ledger.json \\
      --scheduler slurm --within 10s
  powerhall-optimizer shed --by 30% --plan plan.json --dry-run         what would be done

exit codes: 0 the target is met, 1 refused, or everything was done and it is not enough
"""


class Outcome(msgspec.Struct, frozen=True):
    """What a shed did: powers at the meter from planned draws; `seconds` is our own time until all was handed over."""

    plan_id: str
    before_w: float
    target_w: float
    after_w: float
    rungs: int
    lowered: int
    paused: int
    stopped: int
    protected: int
    leases: int
    met: bool
    seconds: float
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Shedder:
    """Takes rungs and hands them over; store, scheduler and keys are given, so that a test needs none of them."""

    ledger: LeaseLedger | None
    store: Store | None
    site_key: bytes | None
    writer: PlanWriter | None
    out: Path | None
    lease_s: float = 900.0
    clock: Callable[[], float] = time.time

    def act(self, plan: Plan, steps: Ladder, target_w: float) -> Outcome:
        """Take the rungs to `target_w`: leases first, then the scheduler, then the shed plan's file."""
        begin = time.perf_counter()
        rungs = steps.rungs_to(target_w)
        after, modes = shed_plan(plan, steps, rungs, target_w)
        leases = self._leases(plan, modes)
        if self.writer is not None:
            self.writer.apply(after)
        if self.out is not None:
            write_plan(after, self.out)
        return _outcome(steps, target_w, leases=leases, seconds=time.perf_counter() - begin)

    def _leases(self, plan: Plan, modes: dict[str, str]) -> int:
        if self.ledger is None or self.store is None or self.site_key is None:
            return 0
        now_s = self.clock()
        until_s = now_s + self.lease_s
        wanted = needs(plan, now_s, now_s + 1.0, modes)
        budgets = lease_budgets(plan, now_s, until_s)
        leases = grant_leases(plan, wanted, self.ledger, budgets, site_key=self.site_key, now_s=now_s, until_s=until_s)
        return publish_leases(self.store, plan.snapshot.site, leases)


def _outcome(
    steps: Ladder, target_w: float, *, leases: int = 0, seconds: float = 0.0, dry_run: bool = False
) -> Outcome:
    rungs = steps.rungs_to(target_w)
    taken = steps.actions[:rungs]
    after_w = taken[-1].left_w if taken else steps.power_w
    ended = {a.job_id for a in taken if a.kind != "lower"}
    return Outcome(
        plan_id=steps.plan_id,
        before_w=steps.power_w,
        target_w=target_w,
        after_w=after_w,
        rungs=rungs,
        lowered=len({a.job_id for a in taken} - ended),
        paused=sum(a.kind == "pause" for a in taken),
        stopped=sum(a.kind == "stop" for a in taken),
        protected=len(steps.protected),
        leases=leases,
        met=after_w <= target_w,
        seconds=seconds,
        dry_run=dry_run,
    )


def read_target(to: str | None, by: str | None, power_w: float) -> float:
    """Return the target in W from `--to 350MW` or `--by 30%`; anything else raises Rejected."""
    if to is not None:
        try:
            return parse_power(to)
        except ValueError as error:
            raise Rejected.field("shed", "--to", to, str(error)) from None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", by or "")
    if found is None or not 0 < float(found[1]) <= 100:
        raise Rejected.field("shed", "--by", by, "must be a share such as 30%")
    return power_w * (1.0 - float(found[1]) / 100.0)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command."""
    form = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "shed", help="bring the site's power down now", description=_TEXT, formatter_class=form
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", metavar="POWER", help="power at the meter to reach, such as 350MW")
    what.add_argument("--by", metavar="SHARE", help="share to shed, such as 30%%")
    what.add_argument("--show", action="store_true", help="print the ladder and do nothing")
    parser.add_argument("--plan", type=Path, default=Path("plan.json"), help="the plan in force (default: plan.json)")
    parser.add_argument("--store", metavar="URL", help="where the nodes' carriers find their leases")
    parser.add_argument("--site-key", type=Path, help="file with the site key")
    parser.add_argument("--ledger", type=Path, help="ledger of what nodes may still hold")
    parser.add_argument(
        "--scheduler", choices=("slurm", "kubernetes", "file"), help="gets the shed plan after the leases"
    )
    parser.add_argument("--settings", type=Path, help="settings of the scheduler")
    parser.add_argument("--out", type=Path, help="write the shed plan here")
    parser.add_argument("--within", default="10 s", help="warn when our own time exceeds this (default: 10 s)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    begin = time.perf_counter()
    now_s = time.time()
    plan = checked_plan(args.plan, now_s)
    steps = ladder(plan, now_s)
    if args.show:
        return _show(steps, args.json)
    target_w = read_target(args.to, args.by, steps.power_w)
    try:
        within_s = parse_duration(args.within)
    except ValueError as error:
        raise Rejected.field("shed", "--within", args.within, str(error)) from None
    if args.dry_run:
        outcome = _outcome(steps, target_w, dry_run=True)
    else:
        shedder = _shedder(args, plan)
        outcome = shedder.act(plan, steps, target_w)
        outcome = msgspec.structs.replace(outcome, seconds=time.perf_counter() - begin)
        if shedder.store is not None:
            shedder.store.close()
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n" if args.json else _sentence(outcome))
    if outcome.seconds > within_s:
        sys.stderr.write(f"powerhall-optimizer: shed: took {outcome.seconds:.1f} s, more than {within_s:g} s\n")
    return EXIT_OK if outcome.met else EXIT_REFUSED


def _shedder(args: argparse.Namespace, plan: Plan) -> Shedder:
    leased = [args.store, args.site_key, args.ledger]
    if any(leased) and not all(leased):
        raise Rejected("shed: --store, --site-key and --ledger go together: all are needed to send leases")
    writer = None
    if args.scheduler:
        from powerhall_optimizer.schedulers.command import open_writer
        from powerhall_optimizer.schedulers.settings import read_settings

        writer = open_writer(args.scheduler, read_settings(args.settings))
    if not any(leased) and writer is None and args.out is None:
        raise Rejected("shed: nothing to act through: give --store with keys, --scheduler or --out; or --dry-run")
    ledger = LeaseLedger(safe_caps_w(plan.snapshot.site), args.ledger) if args.ledger else None
    key = read_site_key(args.site_key) if args.site_key else None
    return Shedder(ledger, open_store(args.store) if args.store else None, key, writer, args.out)


def _show(steps: Ladder, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(steps)) + "\n")
        return EXIT_OK
    lines = [f"{'rung':>5} {'action':<7} {'job':<24} {'mode':<10} {'saves':>10} {'leaves':>10}"]
    lines.append(f"{0:>5} {'':<7} {'':<24} {'':<10} {'':>10} {format_power(steps.power_w):>10}")
    for number, action in enumerate(steps.actions, 1):
        saves, leaves = format_power(action.saved_w), format_power(action.left_w)
        lines.append(f"{number:>5} {action.kind:<7} {action.job_id:<24} {action.mode:<10} {saves:>10} {leaves:>10}")
    lines.append(f"{len(steps.protected)} protected jobs are not on the ladder")
    sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_OK


def _sentence(outcome: Outcome) -> str:
    verb = "would go" if outcome.dry_run else "goes"
    end = "" if outcome.met else "; NOT ENOUGH: only protected jobs and idle nodes are left"
    took = f"{outcome.leases} leases in {outcome.seconds:.2f} s"
    return (
        f"the site {verb} from {format_power(outcome.before_w)} to {format_power(outcome.after_w)} "
        f"(target {format_power(outcome.target_w)}): {outcome.lowered} jobs slowed, {outcome.paused} paused, "
        f"{outcome.stopped} stopped, {outcome.protected} protected, {took}{end}\n"
    )
