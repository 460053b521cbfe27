"""Blocks of nodes from files of schedulers: Slurm's topology (tree and block plug-ins), Kubernetes node labels.

Read are `topology.conf` and the output of `scontrol show topology` (lines of KEY=VALUE), `topology.yaml` and JSON of
the same shape, and a Kubernetes NodeList. What is no switch, block or node in them is skipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from powerhall.hostlist import expand
from powerhall.runtime.decode.bytes_in import read_file, utf8
from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.decode.limits import MOST_JSON_BYTES
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.decode.yaml_data import decode_yaml
from powerhall.runtime.errors import Rejected

__all__ = ["read_topology"]

Blocks = Mapping[str, Sequence[str]]
Row = Mapping[str, object]
_MOST_TIERS = 16


@dataclass(frozen=True, slots=True)
class _Slurm:
    """Switches with their nodes and child switches, blocks with their nodes, and the sizes of blocks."""

    switches: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)


def read_topology(path: Path, topology: str | None, tier: int, label: str | None) -> Blocks:
    """Return the nodes of every block of a tier (1: leaf switches, or blocks), or per value of a node label.

    A file that is none of these, a tier or topology that it does not have, and a host list that is malformed raise
    Rejected; a file that cannot be read raises ConfigError.
    """
    body = read_file(path, MOST_JSON_BYTES)
    source = str(path)
    if path.suffix in (".yaml", ".yml"):
        return _of_tier(_slurm_rows(decode_yaml(body, source), topology, source), tier, source)
    if body.lstrip()[:1] in (b"{", b"["):
        data = decode_plain_json(body, source, MOST_JSON_BYTES)
        if isinstance(data, dict) and isinstance(data.get("items"), list):
            return _of_label(data["items"], label, source)
        return _of_tier(_slurm_rows(data, topology, source), tier, source)
    return _of_tier(_slurm_lines(utf8(body, source), source), tier, source)


def _hosts(text: object, source: str, where: str) -> tuple[str, ...]:
    """Return the names of a host list, or of a list of names."""
    if isinstance(text, list):
        return tuple(str(name) for name in text)
    if not isinstance(text, str) or text in ("", "(null)"):
        return ()
    try:
        return expand(text)
    except ValueError as error:
        raise Rejected.field(source, where, text, str(error)) from None


def _slurm_lines(text: str, source: str) -> _Slurm:
    found = _Slurm()
    lines = text.replace("\\\n", "").splitlines()
    for number, line in enumerate(lines, 1):
        pairs = (word.partition("=") for word in line.partition("#")[0].split())
        row: dict[str, object] = {key.lower(): value for key, _, value in pairs}
        _add(found, row, source, f"line {number}")
    return found


def _add(found: _Slurm, row: Row, source: str, where: str) -> None:
    """Take in a switch, a block, or the sizes of blocks."""
    nodes = _hosts(row.get("nodes"), source, f"{where}: nodes")
    if name := row.get("switchname") or row.get("switch"):
        children = _hosts(row.get("switches") or row.get("children"), source, f"{where}: switches")
        found.switches[str(name)] = nodes, children
    elif name := row.get("blockname") or row.get("block"):
        found.blocks[str(name)] = nodes
    sizes = row.get("blocksizes") or row.get("block_sizes") or row.get("blocksize")
    values = sizes.split(",") if isinstance(sizes, str) else sizes if isinstance(sizes, list) else []
    for value in values:
        size = digits(str(value))
        if not size:
            raise Rejected.field(source, f"{where}: BlockSizes", value, "must be whole numbers of nodes")
        if size not in found.sizes:
            found.sizes.append(size)
    found.sizes.sort()


def _slurm_rows(data: object, topology: str | None, source: str) -> _Slurm:
    """Return the switches and blocks of one topology of `topology.yaml`, or of JSON that has them somewhere."""
    if isinstance(data, dict):
        data = next((data[key] for key in ("topologies", "topology") if isinstance(data.get(key), list)), [data])
    rows: list[Row] = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
    named = [row for row in rows if isinstance(row.get("topology"), str)]
    if topology is not None and all(row.get("topology") != topology for row in named):
        known = ", ".join(str(row["topology"]) for row in named) or "none"
        raise Rejected.field(source, "topology", topology, f"must be a topology of the file, which has {known}")
    if named:
        default = next((row for row in named if row.get("cluster_default") is True), named[0])
        rows = [default if topology is None else next(row for row in named if row["topology"] == topology)]
    found = _Slurm()
    for row in _walk(rows):
        _add(found, row, source, "topology")
    return found


def _walk(rows: Sequence[object]) -> Iterator[Row]:
    """Yield every table in a list, and the tables within them."""
    for row in rows:
        if isinstance(row, dict):
            yield row
            yield from _walk([item for item in row.values() if isinstance(item, dict | list)])
        elif isinstance(row, list):
            yield from _walk(row)


def _of_tier(found: _Slurm, tier: int, source: str) -> Blocks:
    if found.blocks:
        return _aggregated(found, tier, source)
    if not found.switches:
        raise Rejected(f"{source}: has no switch, block or node; must be Slurm's topology, or kubectl's nodes in JSON")
    tiers = {name: _tier_of(found, name, source, ()) for name in found.switches}
    chosen = [name for name, own in tiers.items() if own == tier]
    if not chosen:
        raise Rejected.field(source, "tier", tier, f"must be from 1 to {max(tiers.values())}, as its switches are deep")
    return {name: _below(found, name) for name in chosen}


def _tier_of(found: _Slurm, name: str, source: str, above: tuple[str, ...]) -> int:
    """Return 1 for a switch without switches below it, else one more than the highest of those."""
    if name in above or len(above) >= _MOST_TIERS:
        raise Rejected.field(source, "switch", name, f"must not be below itself, nor {_MOST_TIERS} switches deep")
    if name not in found.switches:
        raise Rejected.field(source, "switch", name, f"is below {above[-1]}, and must have a line of its own")
    return 1 + max((_tier_of(found, child, source, (*above, name)) for child in found.switches[name][1]), default=0)


def _below(found: _Slurm, name: str) -> tuple[str, ...]:
    nodes, children = found.switches[name]
    below = [node for child in children for node in _below(found, child)]
    return tuple(dict.fromkeys((*nodes, *below)))  # scontrol shows the nodes of the switches below as well


def _aggregated(found: _Slurm, tier: int, source: str) -> Blocks:
    """Return the blocks, or runs of as many blocks as the tier's size has: Slurm joins them in the file's order."""
    if tier == 1:
        return found.blocks
    if tier > len(found.sizes):
        allowed = f"must be from 1 to {max(1, len(found.sizes))}, the number of BlockSizes"
        raise Rejected.field(source, "tier", tier, allowed)
    step = max(1, found.sizes[tier - 1] // found.sizes[0])
    names = list(found.blocks)
    groups = [names[first : first + step] for first in range(0, len(names), step)]
    return {"+".join(group): tuple(node for name in group for node in found.blocks[name]) for group in groups}


def _of_label(items: Sequence[object], label: str | None, source: str) -> Blocks:
    if label is None:
        raise Rejected.field(source, "label", None, "must name the node label of the blocks")
    found: dict[str, list[str]] = {}
    for item in items:
        meta = item.get("metadata") if isinstance(item, dict) else None
        labels = meta.get("labels") if isinstance(meta, dict) else None
        value = labels.get(label) if isinstance(labels, dict) else None
        if isinstance(value, str) and value and isinstance(meta, dict) and isinstance(meta.get("name"), str):
            found.setdefault(value, []).append(meta["name"])
    if not found:
        raise Rejected.field(source, "label", label, "must be a label of nodes in the file")
    return found
