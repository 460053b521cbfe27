"""Occupancy of the nodes of one type in one hall over time, and the choice of nodes for a job.

Jobs may be placed in any order: a job of k GPUs fits on a node when k GPUs are free in every slot of its run. GPUs of a
node are interchangeable, and runs of which at most n overlap need n GPUs, so counting them is enough.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.block_choice import BlockChoice
from powerhall_optimizer.placement.zone_headroom import ZoneHeadroom
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.gang_blocks import Parts

__all__ = ["NodeOccupancy", "Split"]

Split = list[tuple[int, int]]
"""Pairs of a node's number and the GPUs taken on it."""
_AT_ONCE = 256


class NodeOccupancy:
    """GPUs in use per slot and node, with the headroom of the zones around them.

    On `closed` nodes jobs go on that run there, and none starts.
    """

    def __init__(self, conditions: SiteConditions, hall: str, node_type: str, headroom: ZoneHeadroom) -> None:
        racks = [rack for rack in conditions.index.halls[hall].racks() if rack.node_type == node_type]
        self.per_node = conditions.site.node_types[node_type].gpus
        self.racks = [rack.zone for rack in racks]
        self.rows = [conditions.index.row_of_rack[rack.zone].zone for rack in racks]
        self.nodes = [node for rack in racks for node in conditions.occupied(rack)]
        self.closed = np.array([not conditions.is_usable(node) for node in self.nodes], bool)
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self.rack_of = np.array([i for i, rack in enumerate(racks) for _ in conditions.occupied(rack)], np.int64)
        self.spans = np.concatenate(([0], np.cumsum([len(conditions.occupied(rack)) for rack in racks]))).tolist()
        shape = conditions.snapshot.slots, len(self.nodes)
        self.busy: npt.NDArray[np.signedinteger] = np.zeros(shape, np.int8 if self.per_node < 127 else np.int16)
        self.barred: dict[str, npt.NDArray[np.bool_]] = {}
        self.busy += np.array([conditions.held_gpus.get(node, 0) for node in self.nodes], self.busy.dtype)
        self.used = np.zeros(len(self.nodes), np.int64)
        self.headroom = headroom
        self.limited = [i for i, zone in enumerate(self.racks) if zone in headroom.left]
        self.row_of = np.unique(np.array(self.rows), return_inverse=True)[1]
        self.row_names = sorted(set(self.rows))
        self.keep_blocks = False
        """Whether the queue has gangs that stay within blocks: others then take the fullest racks."""
        self._block_levels = conditions.index.block_levels
        self._blocks: dict[str, Ints] = {}

    def blocks_of(self, level: str) -> Ints:
        """Return the number of every node's block at a level, -1 for a node in none; blocks are numbered by name."""
        if level not in self._blocks:
            names = [self._block_levels.get(level, {}).get(node, "") for node in self.nodes]
            numbers = {name: number for number, name in enumerate(sorted(set(names) - {""}))}
            self._blocks[level] = np.array([numbers.get(name, -1) for name in names], np.int64)
        return self._blocks[level]

    def _free(self, start: int, end: int) -> Ints:
        result: Ints = self.per_node - self.busy[start:end].max(axis=0).astype(np.int64)
        return result

    def find(self, gpus: int, gpu_w: float, start: int, end: int, allowed: str | None = None) -> Split | None:
        """Return the nodes for a gang from slot start to end, of those allowed (host list; None: all), or None."""
        free = self._free(start, end)
        free[self.barred_for(allowed)] = 0
        if gpus <= self.per_node:
            return self._shared(free, gpus, gpu_w, start, end)
        return self._whole(free, gpus, gpu_w, start, end)

    def barred_for(self, allowed: str | None) -> npt.NDArray[np.bool_]:
        """Return on which nodes a job with these allowed nodes may not start."""
        if allowed is None:
            return self.closed
        if allowed not in self.barred:
            names = set(expand(allowed))
            self.barred[allowed] = self.closed | np.array([node not in names for node in self.nodes], bool)
        return self.barred[allowed]

    def find_within(
        self, within: tuple[str, Parts], gpus: int, gpu_w: float, span: tuple[int, int], allowed: str | None
    ) -> Split | None:
        """Return nodes for a job whose parts each stay within one block of a level, or None.

        Blocks that a part leaves the fewest nodes of are taken first. For one part every block is tried; parts that
        share racks or rows with tight power limits are chosen one after the other.
        """
        level, parts = within
        free, block = self._free(*span), self.blocks_of(level)
        free[self.barred_for(allowed)] = 0
        if gpus <= self.per_node:
            return self._shared(np.where(block >= 0, free, -1), gpus, gpu_w, *span)
        whole = np.flatnonzero((free == self.per_node) & (block >= 0))
        by_block: dict[int, list[int]] = {}
        for node in whole[np.argsort(-self.used[whole], kind="stable")].tolist():
            by_block.setdefault(int(block[node]), []).append(node)
        rack_of = {node: self.racks[int(self.rack_of[node])] for node in whole.tolist()}
        chosen = BlockChoice(by_block, rack_of, self.headroom, self.per_node * gpu_w, span).nodes(parts)
        return None if chosen is None else self.split_of(chosen, gpus)

    def split_of(self, nodes: Sequence[int], gpus: int) -> Split:
        """Return the GPUs of a gang on whole nodes; the last has what is left."""
        return [(node, self.per_node) for node in nodes[:-1]] + [(nodes[-1], gpus - self.per_node * (len(nodes) - 1))]

    def has(self, split: Split, start: int, end: int) -> bool:
        """Whether these GPUs are free from slot start to end."""
        return all(int(self.busy[start:end, node].max()) + gpus <= self.per_node for node, gpus in split)

    def has_alone(self, split: Split, start: int, end: int) -> bool:
        """Whether a job that starts finds these GPUs free: a gang needs the whole of its nodes."""
        whole = self._is_gang(split)
        return self.has([(node, self.per_node if whole else gpus) for node, gpus in split], start, end)

    def close(self, split: Split, start: int, end: int) -> None:
        """Give the GPUs that a running gang leaves free on its nodes to nobody: a gang has its nodes to itself."""
        if self._is_gang(split):
            for node, _ in split:
                self.busy[start:end, node] = self.per_node

    def _is_gang(self, split: Split) -> bool:
        return sum(gpus for _, gpus in split) > self.per_node

    def openings(
        self, gpus: int, duration: int, allowed: str | None = None, within: tuple[str, Parts] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return for each start slot whether nodes are free for that long (cut to the horizon), power aside."""
        most = self._most_busy(duration, self.barred_for(allowed))
        if within is not None and gpus > self.per_node:
            return self._block_openings(most == 0, *within)
        small = gpus <= self.per_node
        fitting = np.count_nonzero(most <= self.per_node - gpus if small else most == 0, axis=1)
        result: npt.NDArray[np.bool_] = np.asarray(fitting) >= (1 if small else -(-gpus // self.per_node))
        return result

    def _block_openings(self, empty: npt.NDArray[np.bool_], level: str, parts: Parts) -> npt.NDArray[np.bool_]:
        block = self.blocks_of(level)
        order = np.argsort(block, kind="stable")
        order = order[np.searchsorted(block[order], 0) :]
        if not len(order):
            return np.zeros(len(empty), bool)
        firsts = np.flatnonzero(np.diff(block[order], prepend=-1))
        held = np.add.reduceat(empty[:, order], firsts, axis=1, dtype=np.int64) // parts.nodes
        result: npt.NDArray[np.bool_] = held.sum(axis=1) >= parts.count
        return result

    def _most_busy(self, duration: int, barred: npt.NDArray[np.bool_]) -> npt.NDArray[np.signedinteger]:
        """Return the most GPUs in use on each node over so many slots from each start."""
        most = np.where(barred, self.per_node, self.busy) if barred.any() else self.busy
        width = 1
        while width < min(duration, len(most)):
            step = min(width, duration - width)
            later = np.zeros_like(most)
            later[:-step] = most[step:]
            most = np.maximum(most, later)
            width += step
        return most

    def _rack_room(self, node_w: float, start: int, end: int) -> Ints:
        """Return how many nodes each rack's own limit still carries."""
        room = np.full(len(self.racks), 1 << 30, np.int64)
        for i in self.limited if node_w > 0 else ():
            room[i] = max(0, int((self.headroom.room_w(self.racks[i], start, end) + 1e-6) // node_w))
        return room

    def _shared(self, free: Ints, gpus: int, gpu_w: float, start: int, end: int) -> Split | None:
        """Choose the node that is empty in the fewest of these slots, then the fullest; empty nodes stay whole."""
        open_racks: dict[int, bool] = {}
        for node in self._by_waste(free, gpus, start, end):
            rack = int(self.rack_of[node])
            if rack not in open_racks:
                open_racks[rack] = self.headroom.fits({self.racks[rack]: gpus * gpu_w}, start, end)
            if open_racks[rack]:
                return [(node, gpus)]
            if len(open_racks) == len(self.racks) and not any(open_racks.values()):
                return None
        return None

    def _by_waste(self, free: Ints, gpus: int, start: int, end: int) -> Iterator[int]:
        candidates = np.flatnonzero(free >= gpus)
        candidates = candidates[np.argsort(free[candidates], kind="stable")]
        for first in range(0, len(candidates), _AT_ONCE):
            some = candidates[first : first + _AT_ONCE]
            empty = (self.busy[start:end, some] == 0).sum(axis=0)
            yield from some[np.lexsort((free[some], empty))].tolist()

    def _whole(self, free: Ints, gpus: int, gpu_w: float, start: int, end: int) -> Split | None:
        need = -(-gpus // self.per_node)
        empty = free == self.per_node
        counts = np.bincount(self.rack_of[empty], minlength=len(self.racks))
        counts = np.minimum(counts, self._rack_room(self.per_node * gpu_w, start, end))
        chosen: list[int] = []
        for rack, take in self._racks_for(counts, need, self.per_node * gpu_w, start, end):
            first, last = self.spans[rack], self.spans[rack + 1]
            fit = first + np.flatnonzero(empty[first:last])
            chosen += fit[np.argsort(-self.used[fit], kind="stable")][:take].tolist()
        if len(chosen) < need:
            return None
        split = self.split_of(chosen, gpus)
        return split if self.headroom.fits(self.loads(split, gpu_w), start, end) else None

    def _racks_for(self, counts: Ints, need: int, node_w: float, start: int, end: int) -> Iterable[tuple[int, int]]:
        """Yield racks with the nodes to take from each: the smallest row that fits the gang, else the emptiest rows."""
        totals = np.bincount(self.row_of, weights=counts, minlength=len(self.row_names)).astype(np.int64).tolist()
        for i, row in enumerate(self.row_names):
            if row in self.headroom.left and node_w > 0:
                totals[i] = min(totals[i], max(0, int((self.headroom.room_w(row, start, end) + 1e-6) // node_w)))
        enough = sorted((count, i) for i, count in enumerate(totals) if count >= need)
        order = [enough[0][1]] if enough else sorted(range(len(totals)), key=lambda i: (-totals[i], i))
        for row_index in order:
            left = min(need, totals[row_index])
            need -= left
            if left <= 0:
                break
            members = np.flatnonzero((self.row_of == row_index) & (counts > 0))
            fullest = counts[members] if self.keep_blocks else -counts[members]
            for rack in members[np.argsort(fullest, kind="stable")].tolist():
                take = min(left, int(counts[rack]))
                left -= take
                yield rack, take
                if left == 0:
                    break

    def loads(self, split: Split, gpu_w: float) -> dict[str, float]:
        """Return the power per rack that a split adds."""
        loads: dict[str, float] = {}
        for node, gpus in split:
            rack = self.racks[int(self.rack_of[node])]
            loads[rack] = loads.get(rack, 0.0) + gpus * gpu_w
        return loads

    def take(self, split: Split, gpu_w: float, start: int, end: int, sign: int = 1, *, running: bool = False) -> None:
        """Occupy the GPUs and the zones' power from slot start to end; with sign -1 release them.

        A gang that starts takes its nodes whole; one that runs may share a node with others that run.
        """
        whole = self._is_gang(split) and not running
        for node, gpus in split:
            self.busy[start:end, node] += sign * (self.per_node if whole else gpus)
            self.used[node] += sign * gpus * (end - start)
        self.headroom.add({rack: sign * load for rack, load in self.loads(split, gpu_w).items()}, start, end)
