"""Fuzzes every entry point for data from outside: `python tests/fuzz/run.py --inputs 10000`.

A failure is an exception that is not ours, a refusal of more than one line, an input that takes more than 20 s or more
than 512 MiB above the memory of its process, or one that ends the process. The line of a failure has the seed and the
number of the input: `--only NAME --seed S --first N --inputs 1` repeats it. With `--resume FILE` a run that was ended
goes on where it was: batches in FILE are not run again, except those with a failure.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import agent_entries
import core_entries
import optimizer_entries
from attempt import Limits, attempt
from fork_server import Batch, Found, run_batches

BATCH_INPUTS = 250
ENTRIES = {e.name: e for part in (core_entries, agent_entries, optimizer_entries) for e in part.entries()}


def unread_seeds(names: list[str], limits: Limits) -> dict[str, str]:
    """Read the first seed of each, so that what is imported late is there before the forks; return what fails.

    Of an entry point whose seed is refused, the checks behind the first would never be run.
    """
    failing = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            if problem := attempt(ENTRIES[name], Path(folder), ENTRIES[name].seeds[0], limits).problem:
                failing[name] = f"the seed is not read: {problem}"
    return failing


def batches(names: list[str], seed: int, first: int, inputs: int) -> Iterator[Batch]:
    """Yield the work in pieces."""
    for name in names:
        for begin in range(first, first + inputs, BATCH_INPUTS):
            yield Batch(name, seed, begin, min(BATCH_INPUTS, first + inputs - begin))


class Totals:
    """What was found at one entry point, over its batches."""

    def __init__(self, name: str, batches_left: int) -> None:
        self.name, self.left = name, batches_left
        self.found = Found(Batch(name, 0, 0, 0))
        self.inputs = 0

    def add(self, found: Found) -> None:
        """Add a batch."""
        mine, self.left = self.found, self.left - 1
        self.inputs += found.batch.inputs
        mine.refused, mine.cpu_s = mine.refused + found.refused, mine.cpu_s + found.cpu_s
        mine.worst_s, mine.worst_mib = max(mine.worst_s, found.worst_s), max(mine.worst_mib, found.worst_mib)
        for problem, (count, first) in found.failures.items():
            seen, before = mine.failures.get(problem, (0, first))
            mine.failures[problem] = seen + count, min(before, first)

    def show(self, seed: int) -> int:
        """Print the line of the entry point and its failures; return their number."""
        found = self.found
        line = {"name": self.name, "inputs": self.inputs, "refused": found.refused, "cpu_s": round(found.cpu_s, 1)}
        print(json.dumps(line | {"worst_s": round(found.worst_s, 2), "worst_mib": round(found.worst_mib)}), flush=True)
        for problem, (count, first) in found.failures.items():
            how = f"--only {self.name!r} --seed {seed} --first {first} --inputs 1"
            print(f"  {problem}\n    {count} times; {how}", flush=True)
        return len(found.failures)


def done_before(path: Path | None) -> dict[Batch, Found]:
    """Return the batches of a run that was ended, without those that have to be run again."""
    if path is None or not path.exists():
        return {}
    known = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found = Found(**row | {"batch": Batch(**row["batch"])})
        if found.failures:
            known.pop(found.batch, None)
        else:
            known[found.batch] = found
    return known


def main() -> int:
    """Fuzz; exit code 1 with failures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of each entry point (default: 10000)")
    parser.add_argument("--only", default="", help="entry points whose name holds this text")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on with the run that wrote this file")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the children too
    names = [name for name in ENTRIES if args.only in name]
    limits = Limits()
    failed = 0
    for name, problem in unread_seeds(names, limits).items():
        failed += 1
        print(f"  {problem}\n    --only {name!r}", flush=True)
    wanted = list(batches(names, args.seed, args.first, args.inputs))
    totals = {name: Totals(name, sum(batch.name == name for batch in wanted)) for name in names}

    def count(found: Found) -> int:
        here = totals[found.batch.name]
        here.add(found)
        return here.show(args.seed) if here.left == 0 else 0

    known = done_before(args.resume)
    failed += sum(count(known[batch]) for batch in wanted if batch in known)
    for found in run_batches(ENTRIES, (batch for batch in wanted if batch not in known), limits, args.jobs):
        if args.resume is not None:
            with args.resume.open("a") as file:
                file.write(json.dumps(asdict(found)) + "\n")
        failed += count(found)
    print(f"entry_points={len(names)} inputs={args.inputs} seed={args.seed} failures={failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
