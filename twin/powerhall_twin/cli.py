"""Command line of `powerhall-twin`."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from powerhall import __version__
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED
from powerhall_twin.replay.command import add_parsers

__all__ = ["main", "parser"]

_EPILOG = """\
examples:
  powerhall-twin demo                                 a hot day with a grid curtailment; out/demo/report.html
  powerhall-twin demo --minutes 120 --seed 7          a shorter day with other jobs
  powerhall-twin replay --site site.toml --jobs philly_jobs.csv.gz --hours 24
  powerhall-twin whatif --site site.toml --jobs jobs.csv --change grid=-20%
  powerhall-twin shed --by 30                         an emergency shed, second by second

exit codes: 0 ok, 1 refused input or a budget that did not hold, 2 usage, 3 internal error
"""
_DEMO = """\
Simulates a site of 3 halls, 12 racks and 96 nodes of 8 GPUs in this process and its children: simulated GPUs whose
power follows the running jobs and their limits, the node agents that measure them into the store, cooling plants on a
hot day, an optimizer round every half hour, and a grid curtailment half-way. The power of every zone and the heat of
every plant is compared with its limit at every sample; one sample over a limit makes the exit code 1.

examples:
  powerhall-twin demo
  powerhall-twin demo --out /tmp/day --minutes 240 --seed 3 --speedup 600
  powerhall-twin demo --store 'influxdb://127.0.0.1:8086/powerhall?token_file=token'
"""


_SHED = """\
Runs the demo's site, 96 nodes of 8 simulated GPUs under real cappers, on a plan of the real planner, second by second.
Then the grid asks for a share less: the optimizer's own shed lowers leases, the scheduler stops jobs three seconds
later, and the building's meter says whether the cut holds in time. Exit code 1 when it does not, or when a job that
may not be preempted was touched.

examples:
  powerhall-twin shed
  powerhall-twin shed --by 40 --within 5 --seed 3 --json
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser; each command sets `run`."""
    top = argparse.ArgumentParser(
        prog="powerhall-twin",
        description="A simulated site: demo, replay of job traces, and what-if runs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"powerhall-twin {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="simulate a day at a site and write a report",
        description=_DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for store, plan and report (out/demo)")
    demo.add_argument("--minutes", type=float, default=480.0, help="simulated minutes, 30 to 1440 (default: 480)")
    demo.add_argument(
        "--speedup", type=float, default=900.0, help="simulated seconds per second at most (default: 900)"
    )
    demo.add_argument("--seed", type=int, default=1, help="seed of the jobs and of sensor noise (default: 1)")
    demo.add_argument("--store", metavar="URL", help="store for telemetry and plans (default: sqlite in --out)")
    demo.add_argument("--no-compare", action="store_true", help="leave out the runs of other policies")
    demo.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    demo.set_defaults(run=_demo)
    add_parsers(commands)
    _add_shed(commands)
    return top


def _add_shed(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    shed = commands.add_parser(
        "shed",
        help="an emergency shed on the demo's site",
        description=_SHED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shed.add_argument("--out", type=Path, default=Path("out/shed"), help="folder for state and store (out/shed)")
    shed.add_argument("--by", type=float, default=30.0, metavar="PERCENT", help="share of the metered power (30)")
    shed.add_argument("--within", type=float, default=10.0, metavar="SECONDS", help="deadline (10)")
    shed.add_argument("--poll", type=float, default=2.0, metavar="SECONDS", help="how often carriers look (2)")
    shed.add_argument("--seed", type=int, default=1, help="seed of jobs and polls (1)")
    shed.add_argument("--json", action="store_true", help="print the result as JSON")
    shed.set_defaults(run=_shed)


def _shed(args: argparse.Namespace) -> int:
    import msgspec

    from powerhall_twin.shed.site import ShedSettings
    from powerhall_twin.shed.trial import run_shed

    _in_range("--by", args.by, 1, 100)
    _in_range("--within", args.within, 1, 600)
    _in_range("--poll", args.poll, 0.1, 60)
    settings = ShedSettings(
        args.out, share=args.by / 100, within_s=args.within, after_s=args.within + 50, poll_s=args.poll, seed=args.seed
    )
    trial = run_shed(settings)
    if args.json:
        sys.stdout.write(msgspec.json.encode(trial).decode() + "\n")
    else:
        sys.stdout.write(trial.text())
    return EXIT_OK if trial.ok else EXIT_REFUSED


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise Rejected.field("command line", name, f"{value:g}", f"must be from {low:g} to {high:g}")


def _demo(args: argparse.Namespace) -> int:
    from powerhall_twin.demo.demo import DemoSettings, run_demo
    from powerhall_twin.demo.finish import finish

    _in_range("--minutes", args.minutes, 30, 1440)
    _in_range("--speedup", args.speedup, 1, 100_000)
    settings = DemoSettings(
        out=args.out, minutes=args.minutes, speedup=args.speedup, seed=args.seed, store=args.store, quiet=args.json
    )
    result = run_demo(settings)
    summary = finish(result, compare=not args.no_compare, as_json=args.json)
    if summary.interrupted:
        return 130
    return EXIT_OK if summary.ok else EXIT_REFUSED


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what is refused is one line on stderr."""
    top = parser()
    args = top.parse_args(argv)
    if args.command is None:
        top.print_help()
        return EXIT_OK
    try:
        return int(args.run(args))
    except PowerhallError as error:
        sys.stderr.write(f"powerhall-twin: {error}\n")
        return EXIT_REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("powerhall-twin: interrupted\n")
        return 130
    except Exception:  # noqa: BLE001 - the last line of defence; the trace goes to stderr and the exit code says so
        traceback.print_exc()
        return EXIT_INTERNAL
