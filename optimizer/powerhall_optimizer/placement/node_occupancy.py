"""Occupancy of the nodes of one type in one hall over time, and the choice of nodes for a job.

Jobs may be placed in any order: a job of k GPUs fits on a node when k GPUs are free in every slot of its run. GPUs of a
node are interchangeable, and runs of which at most n overlap need n GPUs, so counting them is enough.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from powerhall.jobs import Job
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.zone_headroom import ZoneHeadroom
from powerhall_optimizer.problem.arrays import Ints

__all__ = ["NodeOccupancy", "Split", "spread_gpus"]

Split = list[tuple[int, int]]
"""Pairs of a node's number and the GPUs taken on it."""
_AT_ONCE = 256


def spread_gpus(job: Job, nodes: Sequence[str]) -> list[tuple[str, int]]:
    """Spread a running job's GPUs evenly over its nodes."""
    each, more = divmod(job.gpus, len(nodes))
    return [(node, each + (i < more)) for i, node in enumerate(nodes) if each + (i < more) > 0]


class NodeOccupancy:
    """GPUs in use per slot and node, with the headroom of the zones around them."""

    def __init__(self, conditions: SiteConditions, hall: str, node_type: str, headroom: ZoneHeadroom) -> None:
        racks = [rack for rack in conditions.index.halls[hall].racks() if rack.node_type == node_type]
        self.per_node = conditions.site.node_types[node_type].gpus
        self.racks = [rack.zone for rack in racks]
        self.rows = [conditions.index.row_of_rack[rack.zone].zone for rack in racks]
        self.nodes = [node for rack in racks for node in conditions.usable(rack)]
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self.rack_of = np.array([i for i, rack in enumerate(racks) for _ in conditions.usable(rack)], np.int64)
        self.spans = np.concatenate(([0], np.cumsum([len(conditions.usable(rack)) for rack in racks]))).tolist()
        shape = conditions.snapshot.slots, len(self.nodes)
        self.busy: npt.NDArray[np.signedinteger] = np.zeros(shape, np.int8 if self.per_node < 127 else np.int16)
        self.used = np.zeros(len(self.nodes), np.int64)
        self.headroom = headroom
        self.limited = [i for i, zone in enumerate(self.racks) if zone in headroom.left]
        self.row_of = np.unique(np.array(self.rows), return_inverse=True)[1]
        self.row_names = sorted(set(self.rows))

    def _free(self, start: int, end: int) -> Ints:
        result: Ints = self.per_node - self.busy[start:end].max(axis=0).astype(np.int64)
        return result

    def find(self, gpus: int, gpu_w: float, start: int, end: int) -> Split | None:
        """Return the nodes for a gang from slot start to end, or None."""
        free = self._free(start, end)
        if gpus <= self.per_node:
            return self._shared(free, gpus, gpu_w, start, end)
        return self._whole(free, gpus, gpu_w, start, end)

    def has(self, split: Split, start: int, end: int) -> bool:
        """Whether these GPUs are free from slot start to end."""
        return all(int(self.busy[start:end, node].max()) + gpus <= self.per_node for node, gpus in split)

    def openings(self, gpus: int, duration: int) -> npt.NDArray[np.bool_]:
        """Return for each start slot whether nodes are free for that long (cut to the horizon), power aside."""
        most = self.busy
        width = 1
        while width < min(duration, len(most)):
            step = min(width, duration - width)
            later = np.zeros_like(most)
            later[:-step] = most[step:]
            most = np.maximum(most, later)
            width += step
        small = gpus <= self.per_node
        fitting = np.count_nonzero(most <= self.per_node - gpus if small else most == 0, axis=1)
        result: npt.NDArray[np.bool_] = np.asarray(fitting) >= (1 if small else -(-gpus // self.per_node))
        return result

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
        split = [(node, self.per_node) for node in chosen]
        split[-1] = (chosen[-1], gpus - self.per_node * (need - 1))
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
            for rack in members[np.argsort(-counts[members], kind="stable")].tolist():
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

    def take(self, split: Split, gpu_w: float, start: int, end: int, sign: int = 1) -> None:
        """Occupy the GPUs and the zones' power from slot start to end; with sign -1 release them."""
        for node, gpus in split:
            self.busy[start:end, node] += sign * gpus
            self.used[node] += sign * gpus * (end - start)
        self.headroom.add({rack: sign * load for rack, load in self.loads(split, gpu_w).items()}, start, end)
