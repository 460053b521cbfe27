"""Inputs of the project-scheduling benchmark: the CSV of best known makespans and the `.sm` files, all or a sample."""

import argparse
import csv
import itertools
import lzma
import random
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.rcpsp import psplib
from powerhall_optimizer.rcpsp.instance import Instance


@dataclass(frozen=True, slots=True)
class Best:
    """The literature's bounds of one instance; `lower` is 0 where none is given."""

    upper: int
    lower: int


def read_best_known(path: Path) -> dict[str, Best]:
    """Read the bounds of the literature by lower-case instance name."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise Rejected.field(str(path), "file", path.name, f"cannot be read: {error.strerror}") from error
    if not rows or not {"instance", "ub"} <= set(rows[0]):
        raise Rejected.field(str(path), "columns", list(rows[0]) if rows else [], "must have instance and ub")
    return {key_of(row["instance"]): best_of(row, f"{path}:{at}") for at, row in enumerate(rows, 2)}


def best_of(row: dict[str, str], place: str) -> Best:
    """Read the bounds of one row; an `lb` that is absent or empty counts as none."""
    upper, lower = row["ub"] or "", row.get("lb") or "0"
    if not upper.isdecimal() or not lower.isdecimal() or int(upper) < max(int(lower), 1):
        raise Rejected.field(place, "ub, lb", f"{upper}, {lower}", "must be whole numbers, 1 <= ub, lb <= ub")
    return Best(int(upper), int(lower))


def key_of(name: str) -> str:
    """`J301_1.sm`, `j301_1` and `dir/j301_1.SM` are the same instance."""
    lower = Path(name).name.lower()
    return lower.removesuffix(".sm")


def set_of(name: str) -> str:
    """The PSPLIB set of an instance: j30, j60, j90 or j120; other names are their own set `other`."""
    return next((known for known in ("j120", "j30", "j60", "j90") if name.startswith(known)), "other")


def natural(name: str) -> list[tuple[int, str]]:
    """Sort j30 before j120 and j301_2 before j301_10."""
    digits = "".join(char if char.isdigit() else " " for char in name).split()
    return [
        (int(set_of(name)[1:]) if set_of(name) != "other" else 0, ""),
        *((int(part), "") for part in digits),
        (0, name),
    ]


def group_of(name: str) -> str:
    """`j605_4` belongs to `j605`: PSPLIB drew the instances of a group with the same parameters."""
    return name.rpartition("_")[0] or name


def texts_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of every `.sm` file in the folder and in its `.tar.xz` archives."""
    if not folder.is_dir():
        raise Rejected.field("command line", "--instances", str(folder), "must be a folder")
    for path in sorted(folder.rglob("*")):
        try:
            if path.suffix.lower() == ".sm":
                yield key_of(path.name), path.read_text(encoding="ascii", errors="replace")
            elif path.name.endswith(".tar.xz"):
                with tarfile.open(path, "r:xz") as archive:
                    for member in archive:
                        content = archive.extractfile(member) if member.name.lower().endswith(".sm") else None
                        if content is not None:
                            yield key_of(member.name), content.read().decode("ascii", errors="replace")
        except (OSError, tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise Rejected.field(str(path), "file", path.name, f"cannot be read: {error}") from error


def chosen(arguments: argparse.Namespace, best: dict[str, Best], limit: int) -> dict[str, Instance]:
    """Return the instances to run, in natural order: those with a best known, of the named sets, sampled if asked."""
    folder = arguments.instances
    wanted = {name.strip().lower() for name in arguments.sets.split(",") if name.strip()}
    found = {name: text for name, text in texts_in(folder) if name in best and (not wanted or set_of(name) in wanted)}
    if not found:
        of = f" of {arguments.sets}" if wanted else ""
        raise Rejected.field(
            "command line", "--instances", str(folder), f"holds no .sm file{of} that --best-known lists"
        )
    by_set = defaultdict(list)
    for name in sorted(found, key=natural):
        by_set[set_of(name)].append(name)
    drawn = [drawn_evenly(names, arguments.sample or len(names), arguments.seed) for names in by_set.values()]
    if limit:
        turns = [name for turn in itertools.zip_longest(*drawn) for name in turn if name is not None]
        sizes = Counter(set_of(name) for name in turns[:limit])
        drawn = [drawn_evenly(names, sizes[at], arguments.seed) for at, names in by_set.items()]
    return {name: psplib.parse(found[name], f"{name}.sm") for name in sorted(itertools.chain(*drawn), key=natural)}


def drawn_evenly(names: list[str], most: int, seed: int) -> list[str]:
    """Draw `most` of one set's names: whole rounds of one instance of every group, then groups at even distances."""
    draw = random.Random(seed)
    groups = defaultdict(list)
    for name in names:
        groups[group_of(name)].append(name)
    for members in groups.values():
        draw.shuffle(members)
    picked: list[str] = []
    while len(picked) < most and groups:
        full = [members for members in groups.values() if members]
        if not full:
            break
        room = min(most - len(picked), len(full))
        picked += [full[at * len(full) // room].pop() for at in range(room)]
    return picked
