"""Counts of GPUs and of parts of GPUs in Slurm's texts of generic resources (GRES, TRES).

Items look like `gres:gpu:h200:8`, `gres/gpu:8`, `gres/gpu:h200=8`, `gpu:4090:8(IDX:0-7)`, `shard:h200:4(IDX:0)`,
`mps:50`; types may begin with a digit. Later versions write `shard:h200:1(1/4,0/4)`: the parts of each GPU in their
order. In the totals of an allocation an item without a type repeats those with one.
"""

import re
from dataclasses import dataclass, field

from powerhall.runtime.decode.numbers_in import digits

__all__ = ["Gres", "parse_gres", "tres_gpus"]

_ITEM = re.compile(r"[^,;|(]+(?:\([^)]*\))?")
_COUNT = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?([kKmM]?)")
_FACTORS = {"": 1, "k": 1024, "m": 1024**2}
_MIG = re.compile(r"(?:.*[_-])?(?:(?:[0-9]+c\.)?[0-9]g\.[0-9]+gb.*|mig\b.*)", re.IGNORECASE)
"""Type of a MIG instance, with or without the GPU's name before it: `1g.10gb`, `a100_3g.20gb`."""
_INDEX = re.compile(r"IDX:([0-9,-]+)")
_USED = re.compile(r"([0-9]{1,9})/[0-9]{1,9}(?:,|\)|$)")
_MOST_INDEX = 1024


@dataclass(slots=True)
class Gres:
    """Whole GPUs by type ("" where none is named), MIG slices by type, shards and MPS units.

    `indices` are the GPUs of a node that shards or MPS units are on, `slice_indices` the numbers of MIG slices among
    those of a node.
    """

    gpus: dict[str, int] = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    mps: int = 0
    indices: set[int] = field(default_factory=set)
    slice_indices: set[int] = field(default_factory=set)

    @property
    def whole(self) -> int:
        """Whole GPUs; an item without a type repeats the others."""
        return _total(self.gpus)

    @property
    def mig(self) -> int:
        """MIG slices."""
        return _total(self.slices)

    @property
    def is_part(self) -> bool:
        """Whether it holds parts of GPUs."""
        return bool(self.slices or self.shards or self.mps)

    @property
    def kind(self) -> str:
        """The type of GPU that is named, "" for none."""
        return next((kind for kind in (*self.gpus, *self.slices) if kind), "")

    def add(self, name: str, kind: str, count: int, indices: set[int]) -> None:
        """Count one item."""
        if name == "gpu":
            is_mig = _MIG.fullmatch(kind) is not None
            counts = self.slices if is_mig else self.gpus
            counts[kind] = counts.get(kind, 0) + count
            self.slice_indices |= indices if is_mig else set()
        elif name == "shard":
            self.shards += count
            self.indices |= indices
        elif name == "mps":
            self.mps += count
            self.indices |= indices


def _total(counts: dict[str, int]) -> int:
    return max(counts.get("", 0), sum(count for kind, count in counts.items() if kind))


def parse_gres(text: str) -> Gres:
    """Read a text of generic resources; items that are none are passed over."""
    found = Gres()
    for item in _ITEM.findall(text):
        plain, _, detail = item.strip().partition("(")
        plain = re.sub(r"^gres[:/]", "", plain)
        named, _, number = plain.rpartition("=") if "=" in plain else plain.rpartition(":")
        is_counted = (count := _COUNT.fullmatch(number)) is not None
        if not is_counted:
            named, count = plain, _COUNT.fullmatch("1")
        name, *kinds = named.split(":")
        kind = ":".join(word for word in kinds if word != "no_consume")  # a flag of slurm.conf
        if count and name:
            indices, name = _indices(detail), name.lower()
            whole = (int(count[1]) + bool((count[2] or "").strip("0"))) * _FACTORS[count[3].lower()]
            found.add(name, kind, whole if is_counted or name != "gpu" else max(whole, len(indices)), indices)
    return found


def _indices(detail: str) -> set[int]:
    used: list[str] = _USED.findall(detail)[: _MOST_INDEX + 1]
    found = {number for number, count in enumerate(used) if int(count)}
    for text in _INDEX.findall(detail):
        for part in text.split(","):
            first, _, last = part.partition("-")
            low, high = digits(first), digits(last or first)
            if low is not None and high is not None and high <= _MOST_INDEX:
                found.update(range(low, high + 1))
    return found


def tres_gpus(text: str) -> tuple[int, str]:
    """Return the GPUs or MIG slices of a text and their type."""
    gres = parse_gres(text)
    return gres.whole + gres.mig, gres.kind
