"""How a cluster counts power: a flat licence of slurm.conf, or a hierarchical resource of resources.yaml (mode 3).

`scontrol show lic` has one line for a flat licence and one per layer, with `Mode=3`, for a hierarchical one.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from powerhall.hostlist import expand
from powerhall.runtime.decode.numbers_in import digits

__all__ = ["TREE_SINCE", "Cluster", "Tokens", "parse_config", "parse_tokens"]

TREE_SINCE = (25, 11)
"""The first version of Slurm with hierarchical resources of mode 3."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """`total` units of the whole cluster, 0 where the licence is not there; `layers` by node set where it is a tree."""

    total: int = 0
    layers: dict[frozenset[str], int] | None = None

    @property
    def is_tree(self) -> bool:
        """Whether charges count per node, in layers."""
        return self.layers is not None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What `scontrol show config` says: the version, and the folder of slurm.conf ("" where it is not told)."""

    version: tuple[int, int]
    folder: str

    @property
    def has_tree(self) -> bool:
        """Whether this Slurm has hierarchical resources of mode 3."""
        return self.version >= TREE_SINCE


def parse_config(text: str) -> Cluster:
    """Read `scontrol show config`; a version that is not understood is an old one."""
    version = re.search(r"^SLURM_VERSION\s*=\s*([0-9]{1,4})\.([0-9]{1,4})", text, re.MULTILINE)
    conf = re.search(r"^SLURM_CONF\s*=\s*(/\S+)", text, re.MULTILINE)
    return Cluster((int(version[1]), int(version[2])) if version else (0, 0), str(Path(conf[1]).parent) if conf else "")


def _nodes(text: str) -> frozenset[str]:
    try:
        return frozenset(expand(text))
    except ValueError:
        return frozenset()


def parse_tokens(text: str, licence: str) -> Tokens:
    """Read `scontrol -o show lic` for one licence."""
    total, layers = 0, {}
    for line in text.splitlines():
        pairs = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if pairs.get("LicenseName") != licence:
            continue
        count = digits(pairs.get("Total", "")) or 0
        total = max(total, count)
        if pairs.get("Mode") == "3":
            layers[_nodes(pairs.get("Nodes", ""))] = count
    if layers:
        total = layers[max(layers, key=len)]
    return Tokens(total, layers or None)
