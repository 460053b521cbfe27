"""`powerhall-twin size`: how many nodes fit under the budgets, how much battery, tank or cooling they need."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.files import replace_file
from powerhall_twin.commands.calls_options import add_calls_options, check_calls_options
from powerhall_twin.commands.ranges import check_range
from powerhall_twin.commands.replay_options import add_replay_options, progress, read_case, read_policies, read_timing

if TYPE_CHECKING:
    from powerhall_twin.replay.size import Sizing

__all__ = ["add_parser"]

_TEXT = """\
Answers how many nodes fit under the site's budgets: the most at which the share of missed deadlines stays below a goal
and no budget is exceeded, for each policy and seed. Work grows with the nodes. Budgets, feeds, halls and
plants stay as they are; added racks are copies of the site's own. A job without a deadline is due --slack times its
duration after its submission. With seeds the jobs are drawn anew, and the mean has a 95 % interval.

--of battery, tank or cooling asks for the least that is enough for the site as it is: the batteries or tanks of the
site file, or its cooling plants, are scaled, powers in proportion, from none to --most times their size. --name takes
one of them (cooling: HALL or HALL/PLANT).

examples:
  powerhall-twin size --site site.toml --jobs jobs.csv --hours 24 --policies tdp,easy,lowcap --seeds 5
  powerhall-twin size --site site.toml --jobs jobs.csv --misses 0.01 --slack 3 --json
  powerhall-twin size --site site.toml --jobs jobs.csv --of battery --out battery.json
  powerhall-twin size --site site.toml --jobs jobs.csv --of cooling --name hall1 --scheduler tcp://10.0.0.1:8786
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "size", _size, help="how many nodes fit under the budgets", description=_TEXT)
    add_replay_options(parser)
    parser.add_argument(
        "--of", choices=("nodes", "battery", "tank", "cooling"), default="nodes", help="what is sized (default: nodes)"
    )
    parser.add_argument("--name", metavar="NAME", help="one battery, tank, hall or HALL/PLANT (default: all)")
    parser.add_argument("--policies", default="tdp,easy", metavar="NAMES", help="default: tdp,easy")
    parser.add_argument("--seeds", type=int, default=3, help="number of drawn workloads, 1 to 100 (default: 3)")
    parser.add_argument(
        "--misses", type=float, default=0.02, help="share of deadlines that may be missed (default: 0.02)"
    )
    parser.add_argument("--slack", type=float, default=2.0, help="deadline in durations after submission (default: 2)")
    parser.add_argument("--most", type=float, default=3.0, help="largest size tried over the site's own (default: 3)")
    add_calls_options(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file of the result; a killed run goes on")


def _size(args: argparse.Namespace) -> int:
    from powerhall_twin.replay.calls import calls_on
    from powerhall_twin.replay.kept_rows import inputs_hash, kept_beside
    from powerhall_twin.replay.size import SizedSeed, SizingGoal, size
    from powerhall_twin.replay.sized_part import part_of

    check_range("--seeds", args.seeds, 1, 100)
    check_range("--misses", args.misses, 0, 1)
    check_range("--slack", args.slack, 1, 1000)
    check_range("--most", args.most, 0.1, 20)
    if args.of == "nodes" and args.name is not None:
        raise Rejected.field("command line", "--name", args.name, "needs --of battery, tank or cooling")
    workers = check_calls_options(args)
    case, timing = read_case(args), read_timing(args)
    names = read_policies(args, case)
    goal = SizingGoal(args.misses, args.slack, args.most)
    part = None if args.of == "nodes" else part_of(case.scenario.site, args.of, args.name)
    inputs = inputs_hash(case.scenario, part, goal, timing)
    seeds = range(1, args.seeds + 1)
    with kept_beside(args.out, inputs, SizedSeed) as kept:
        with calls_on(args.scheduler, workers) as calls:
            show = progress(args)
            found = size(case.scenario, names, goal, seeds, timing, part=part, calls=calls, kept=kept, progress=show)
        text = msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
        if args.out is not None:
            replace_file(args.out, text)
    sys.stdout.write(text.decode() if args.json else _table(found))
    return EXIT_OK


def _table(found: Sequence["Sizing"]) -> str:
    first = found[0]
    lines = [f"{'':<14}{first.unit:>10}{'95 % interval':>22}{'of the site':>13}{'peak/budget':>13}{'late':>8}\n"]
    for one in found:
        span = "-" if one.low is None or one.high is None else f"{one.low:,.0f} to {one.high:,.0f}"
        late = max(one.misses, default=0.0)
        share = "-" if one.mean is None or not one.own else f"{one.mean / one.own:.0%}"
        mean = "none" if one.mean is None else f"{one.mean:,.0f}"
        lines.append(f"{one.policy:<14}{mean:>10}{span:>22}{share:>13}{one.budget_use:>13.1%}{late:>8.1%}\n")
        enough = sum(size is not None for size in one.sizes)
        if enough < len(one.sizes):
            lines.append(f"  enough for {enough} of {len(one.sizes)} seeds within {one.own:,.0f} {one.unit} x --most\n")
    return "".join(lines)
