"""`powerhall-optimizer shed`: reduces the site's power now, without solving; by hand, by signal file or by HTTP."""

import argparse
import json
import sys
import time
from pathlib import Path

import msgspec

from powerhall.runtime.command_line import Commands, add_command, option_value
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.store import open_store
from powerhall.store.open import store_kind
from powerhall.units import format_power, parse_power, parse_share, parse_span
from powerhall_optimizer.leases.plan_in_force import present_plan
from powerhall_optimizer.schedulers.registry import scheduler_names
from powerhall_optimizer.shed.ladder import Ladder, ladder
from powerhall_optimizer.shed.meter import baseline_w
from powerhall_optimizer.shed.open import ShedOptions, open_shedder
from powerhall_optimizer.shed.shedder import Outcome, outcome_of

__all__ = ["add_parser", "read_target"]

_TEXT = """Brings the site to a power at the meter at once, without solving. Takes the first rungs of the plan's ladder
(lower power modes, then pause jobs that can checkpoint, then stop jobs of the lowest weight; jobs that may not be
preempted are never touched), sends leases with the lower caps, and passes the shed plan to the scheduler.

examples:
  powerhall-optimizer shed --show --plan plan.json                     the ladder, with megawatts per rung
  powerhall-optimizer shed --by 30% --plan plan.json --store URL --site-key site.key --ledger ledger.json
  powerhall-optimizer shed --to 350MW --plan plan.json --store URL --site-key site.key --ledger ledger.json \\
      --scheduler slurm --within 10s
  powerhall-optimizer shed --by 30% --plan plan.json --dry-run         print the outcome, change nothing

for grid operators, as a service (both may be given; docs/guide/shed.md):
  powerhall-optimizer shed --watch /var/lib/powerhall-signals --events events.json --store URL ...
  powerhall-optimizer shed --serve 127.0.0.1:8470 --token-file hook.token --events events.json --store URL ...

exit codes: 0 the target is met, 1 refused, a step failed, or the whole ladder is not enough
"""


def read_target(to: str | None, by: str | None, power_w: float) -> float:
    """Return the target in W from `--to 350MW` or `--by 30%`; anything else raises Rejected."""
    if to is not None:
        try:
            return parse_power(to)
        except ValueError as error:
            raise Rejected.field("shed", "--to", to, str(error)) from None
    share = option_value("--by", by or "", parse_share)
    if not share:
        raise Rejected.field("shed", "--by", by, "must be a share such as 30%")
    return power_w * (1.0 - share)


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "shed", _run, help="bring the site's power down now", description=_TEXT)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--to", metavar="POWER", help="power at the meter to reach, such as 350MW")
    what.add_argument("--by", metavar="SHARE", help="share to shed, such as 30%%")
    what.add_argument("--show", action="store_true", help="print the ladder and do nothing")
    parser.add_argument("--plan", type=Path, default=Path("plan.json"), help="the plan in force (default: plan.json)")
    parser.add_argument("--store", metavar="URL", help="store to write the nodes' leases to")
    parser.add_argument("--site-key", type=Path, help="file with the site key")
    parser.add_argument("--ledger", type=Path, help="ledger of caps that nodes may still hold")
    parser.add_argument(
        "--scheduler", choices=scheduler_names(), help="workload manager that gets the shed plan after the leases"
    )
    parser.add_argument("--settings", type=Path, help="settings of the scheduler")
    parser.add_argument("--out", type=Path, help="write the shed plan here")
    parser.add_argument(
        "--within", help="wait up to this long for the nodes to confirm, such as 10s; exit code 1 when it takes longer"
    )
    parser.add_argument(
        "--ramp-down", metavar="RATE", help="lower the power in steps no faster than this, such as '5 MW/min'"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the outcome, change nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    served = parser.add_argument_group("service")
    served.add_argument("--watch", type=Path, metavar="DIR", help="read events from files in this folder")
    served.add_argument("--serve", metavar="IP:PORT", help="accept events by HTTP; beyond loopback with TLS only")
    served.add_argument("--token-file", type=Path, help="token of the HTTP endpoint, 32 characters or more")
    served.add_argument("--tls-cert", type=Path, help="certificate of the HTTP endpoint, with its chain")
    served.add_argument("--tls-key", type=Path, help="private key of the certificate")
    served.add_argument(
        "--allow-http",
        action="store_true",
        help="accept events without TLS beyond loopback, where a proxy in front has TLS",
    )
    served.add_argument(
        "--health", metavar="IP:PORT", help="answer /v1/health and /v1/ready there too, on loopback, without TLS"
    )
    served.add_argument(
        "--state", type=Path, default=Path("shed.json"), help="state file of the service (default: shed.json)"
    )
    served.add_argument(
        "--events", type=Path, help="events file of site.toml to maintain, so that rounds keep the limit"
    )


def _run(args: argparse.Namespace) -> int:
    if args.watch is not None or args.serve is not None:
        if args.to or args.by or args.show or args.dry_run:
            raise Rejected("shed: --watch and --serve wait for events: not with --to, --by, --show or --dry-run")
        from powerhall_optimizer.shed.shed_service import ServiceOptions, serve

        service = ServiceOptions(
            args.plan,
            args.state,
            args.events,
            args.watch,
            args.serve,
            token_file=args.token_file,
            tls_cert=args.tls_cert,
            tls_key=args.tls_key,
            health=args.health,
            allow_http=args.allow_http,
        )
        return serve(service, _options(args))
    if not (args.to or args.by or args.show):
        raise Rejected("shed: nothing to do: give one of --to, --by, --show, --watch and --serve")
    return _once(args)


def _options(args: argparse.Namespace) -> ShedOptions:
    return ShedOptions(
        args.store, args.site_key, args.ledger, args.scheduler, args.settings, args.out, ramp_down=args.ramp_down
    )


def _once(args: argparse.Namespace) -> int:
    begin_s = time.monotonic()
    now_s = time.time()
    plan = present_plan(args.plan, now_s)
    steps = ladder(plan, now_s)
    site = plan.snapshot.site.name
    if args.show:
        return _show(steps, args.json)
    read_target(args.to, args.by, steps.power_w)  # refused before anything is opened
    within_s = None if args.within is None else _within(args.within)
    if args.dry_run:
        store = open_store(args.store) if args.store and _exists(args.store) else None
        target_w = read_target(args.to, args.by, baseline_w(store, site, steps.power_w, now_s))
        outcome = outcome_of(steps, target_w, dry_run=True)
        if store is not None:
            store.close()
    else:
        shedder = open_shedder(_options(args), plan)
        target_w = read_target(args.to, args.by, baseline_w(shedder.store, site, steps.power_w, now_s))
        outcome = shedder.act(plan, steps, target_w, within_s=within_s)
        if shedder.store is not None:
            shedder.store.close()
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n" if args.json else _sentence(outcome))
    sys.stderr.writelines(f"powerhall-optimizer: shed: {problem}\n" for problem in outcome.problems)
    took_s = time.monotonic() - begin_s
    if within_s is not None and took_s > within_s + 1.0:
        sys.stderr.write(f"powerhall-optimizer: shed: took {took_s:.1f} s, more than {within_s:g} s\n")
        return EXIT_REFUSED
    return EXIT_OK if outcome.met else EXIT_REFUSED


def _exists(url: str) -> bool:
    """Return whether the store exists: a dry run must not create an empty file."""
    file = store_kind(url).file
    return file is None or file(url).exists()


def _within(text: str) -> float:
    try:
        return parse_span(text)
    except ValueError as error:
        raise Rejected.field("shed", "--within", text, str(error)) from None


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
    end = "" if outcome.after_w <= outcome.target_w else "; NOT ENOUGH: only protected jobs and idle nodes are left"
    took = f"{outcome.leases} leases in {outcome.seconds:.2f} s"
    if outcome.confirmed_seconds is not None:
        took += f", {outcome.confirmed} confirmed within {outcome.confirmed_seconds:.1f} s"
    return (
        f"the site {verb} from {format_power(outcome.before_w)} to {format_power(outcome.after_w)} "
        f"(target {format_power(outcome.target_w)}): {outcome.lowered} jobs slowed, {outcome.paused} paused, "
        f"{outcome.stopped} stopped, {outcome.protected} protected, {took}{end}\n"
    )
