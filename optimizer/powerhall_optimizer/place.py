"""Placement: halls -> rows -> racks -> nodes for a schedule that already holds every hall's limits.

Invariants:
* jobs are placed in the order of their starts, so a GPU is free exactly when everything placed on it has ended;
* limits of rows, racks and of feeds that carry parts of halls hold in every slot;
* a job of a node's GPUs or fewer stays on one node, a larger one takes whole nodes, in as few rows as there are;
* running jobs stay where they are. A job that finds no nodes starts when some are free, or goes back to waiting.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import compress, expand
from powerhall.jobs import Job
from powerhall.plan import Placement
from powerhall.topology import Rack
from powerhall_optimizer.budgets import Ground
from powerhall_optimizer.build import Built, Choice
from powerhall_optimizer.problem import Ints, Problem, Schedule
from powerhall_optimizer.rooms import feed_halls

__all__ = ["Placed", "Zones", "place", "spread"]

Floats = npt.NDArray[np.float64]
_RETRIES = 24


@dataclass(frozen=True, slots=True)
class Placed:
    """The schedule as placed, the nodes of each scheduled job, and why jobs were left out."""

    schedule: Schedule
    nodes: dict[int, tuple[Placement, ...]]
    left_out: dict[int, tuple[str, str]]


class Zones:
    """Loads of the zones that placement answers for, in W above the base load, and what is left of their budgets.

    Zones whose budget carries all of their nodes at full power are left out.
    """

    def __init__(self, ground: Ground) -> None:
        self.slots = ground.snapshot.slots
        self.left: dict[str, Floats] = {}
        self.of_rack: dict[str, list[str]] = {rack.zone: [] for rack in ground.site.racks()}
        for hall in ground.site.halls:
            for row in hall.rows:
                self._add(ground, row.zone, row.racks)
                for rack in row.racks:
                    self._add(ground, rack.zone, (rack,))
        for feed in ground.site.feeds:
            racks = ground.site.feed_racks(feed)
            whole = {rack.zone for hall in feed_halls(ground, feed) for rack in hall.racks()}
            if any(rack.zone not in whole for rack in racks):
                self._add(ground, feed.zone, racks)

    def _add(self, ground: Ground, zone: str, racks: Sequence[Rack]) -> None:
        if zone not in ground.budgets_w:
            return
        left = ground.budgets_w[zone] - sum(ground.base_w[rack.zone] for rack in racks)
        ground.refuse_below(zone, "power budget", left)
        if left.min() >= sum(ground.most_added_w(rack) for rack in racks):
            return
        self.left[zone] = np.maximum(left, 0.0)
        for rack in racks:
            self.of_rack[rack.zone].append(zone)

    def room_w(self, zone: str, start: int, end: int) -> float:
        """Return the least that is left of a zone's budget from slot start to end."""
        return float(self.left[zone][start : min(end, self.slots)].min())

    def against(self, loads: Mapping[str, float], start: int, end: int) -> dict[str, int]:
        """Return the zones that do not take the loads of these racks, each with the first slot in which it does not."""
        total: dict[str, float] = {}
        for rack, power_w in loads.items():
            for zone in self.of_rack[rack]:
                total[zone] = total.get(zone, 0.0) + power_w
        found: dict[str, int] = {}
        for zone, power_w in total.items():
            over = self.left[zone][start : min(end, self.slots)] < power_w - 1e-6
            if over.any():
                found[zone] = start + int(np.argmax(over))
        return found

    def fits(self, loads: Mapping[str, float], start: int, end: int) -> bool:
        """Whether every zone takes the loads of these racks."""
        return not self.against(loads, start, end)

    def add(self, loads: Mapping[str, float], start: int, end: int) -> None:
        """Take the loads off what is left."""
        for rack, power_w in loads.items():
            for zone in self.of_rack[rack]:
                self.left[zone][start : min(end, self.slots)] -= power_w


class _Floor:
    """The nodes of one type in one hall: per GPU the slot from which it is free."""

    def __init__(self, ground: Ground, hall: str, node_type: str, zones: Zones) -> None:
        racks = [rack for rack in ground.site.hall(hall).racks() if rack.node_type == node_type]
        self.per_node = ground.site.node_types[node_type].gpus
        self.racks = [rack.zone for rack in racks]
        self.rows = [rack.zone.rsplit("/", 1)[0] for rack in racks]
        self.nodes = [node for rack in racks for node in ground.usable(rack)]
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self.rack_of = np.array([i for i, rack in enumerate(racks) for _ in ground.usable(rack)], np.int64)
        self.spans = np.concatenate(([0], np.cumsum([len(ground.usable(rack)) for rack in racks]))).tolist()
        self.free_at = np.zeros((len(self.nodes), self.per_node), np.int64)
        self.zones = zones
        self.limited = [i for i, zone in enumerate(self.racks) if zone in zones.left]
        self.row_of = np.unique(np.array(self.rows), return_inverse=True)[1]
        self.row_names = sorted(set(self.rows))

    def find(self, gpus: int, gpu_w: float, start: int, end: int) -> list[tuple[int, int]] | None:
        """Return (node, GPUs on it) for a gang, or None."""
        free = (self.free_at <= start).sum(axis=1)
        if gpus <= self.per_node:
            return self._shared(free, gpus, gpu_w, start, end)
        return self._whole(free, gpus, gpu_w, start, end)

    def _rack_room(self, node_w: float, start: int, end: int) -> Ints:
        """How many nodes each rack's own limit still takes."""
        room = np.full(len(self.racks), 1 << 30, np.int64)
        for i in self.limited if node_w > 0 else ():
            room[i] = max(0, int((self.zones.room_w(self.racks[i], start, end) + 1e-6) // node_w))
        return room

    def _shared(self, free: Ints, gpus: int, gpu_w: float, start: int, end: int) -> list[tuple[int, int]] | None:
        """The node that the job keeps busy least longer than it is anyway, then the fullest; empty nodes stay whole."""
        open_racks: dict[int, bool] = {}
        candidates = np.nonzero(free >= gpus)[0]
        longer = np.maximum(0, end - np.maximum(self.free_at[candidates].max(axis=1), start))
        for node in candidates[np.lexsort((free[candidates], longer))].tolist():
            rack = int(self.rack_of[node])
            if rack not in open_racks:
                open_racks[rack] = self.zones.fits({self.racks[rack]: gpus * gpu_w}, start, end)
            if open_racks[rack]:
                return [(node, gpus)]
            if len(open_racks) == len(self.racks) and not any(open_racks.values()):
                return None
        return None

    def _whole(self, free: Ints, gpus: int, gpu_w: float, start: int, end: int) -> list[tuple[int, int]] | None:
        need = -(-gpus // self.per_node)
        empty = free == self.per_node
        counts = np.bincount(self.rack_of[empty], minlength=len(self.racks))
        counts = np.minimum(counts, self._rack_room(self.per_node * gpu_w, start, end))
        chosen: list[int] = []
        for rack, take in self._racks_for(counts, need, self.per_node * gpu_w, start, end):
            first, last = self.spans[rack], self.spans[rack + 1]
            chosen += (first + np.flatnonzero(empty[first:last])[:take]).tolist()
        if len(chosen) < need:
            return None
        split = [(node, self.per_node) for node in chosen]
        split[-1] = (chosen[-1], gpus - self.per_node * (need - 1))
        return split if self.zones.fits(self.loads(split, gpu_w), start, end) else None

    def _racks_for(self, counts: Ints, need: int, node_w: float, start: int, end: int) -> Iterable[tuple[int, int]]:
        """Racks with the nodes to take from each: the smallest row that holds the gang, else the emptiest rows."""
        totals = np.bincount(self.row_of, weights=counts, minlength=len(self.row_names)).astype(np.int64).tolist()
        for i, row in enumerate(self.row_names):
            if row in self.zones.left and node_w > 0:
                totals[i] = min(totals[i], max(0, int((self.zones.room_w(row, start, end) + 1e-6) // node_w)))
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

    def loads(self, split: Sequence[tuple[int, int]], gpu_w: float) -> dict[str, float]:
        """Return the power per rack that a split adds."""
        loads: dict[str, float] = {}
        for node, gpus in split:
            rack = self.racks[int(self.rack_of[node])]
            loads[rack] = loads.get(rack, 0.0) + gpus * gpu_w
        return loads

    def take(self, split: Sequence[tuple[int, int]], gpu_w: float, start: int, end: int) -> None:
        """Occupy the GPUs until the end slot and the zones' power."""
        full = [node for node, gpus in split if gpus == self.per_node]
        self.free_at[full] = end
        for node, gpus in split:
            if gpus < self.per_node:
                order = np.argsort(self.free_at[node], kind="stable")[:gpus]
                self.free_at[node, order] = end
        self.zones.add(self.loads(split, gpu_w), start, end)

    def next_free(self, start: int) -> int | None:
        """Return the next slot after `start` in which a GPU becomes free."""
        later = self.free_at[self.free_at > start]
        return int(later.min()) if later.size else None


def spread(job: Job, nodes: Sequence[str]) -> list[tuple[str, int]]:
    """Spread a running job's GPUs evenly over its nodes."""
    each, more = divmod(job.gpus, len(nodes))
    return [(node, each + (i < more)) for i, node in enumerate(nodes) if each + (i < more) > 0]


class _Placer:
    def __init__(self, ground: Ground, built: Built, schedule: Schedule) -> None:
        self.ground = ground
        self.built = built
        self.problem: Problem = built.problem
        self.option = schedule.option.copy()
        self.start = schedule.start.copy()
        self.zones = Zones(ground)
        self.floors: dict[tuple[str, str], _Floor] = {}
        self.rack_of = {node: rack.zone for rack in ground.site.racks() for node in rack.nodes}
        self.nodes: dict[int, tuple[Placement, ...]] = {}
        self.left_out: dict[int, tuple[str, str]] = {}
        self.usage = np.zeros_like(self.problem.capacity)
        for job in np.nonzero(self.option >= 0)[0].tolist():
            self._use(job, 1)

    def _span(self, job: int) -> tuple[int, int]:
        start = int(self.start[job])
        return start, min(start + int(self.problem.option_duration[self.option[job]]), self.problem.slots)

    def _use(self, job: int, sign: int) -> None:
        start, end = self._span(job)
        for resource, amount in self.problem.uses_of(int(self.option[job])):
            self.usage[resource, start:end] += sign * amount

    def choice(self, job: int) -> Choice:
        return self.built.choices[int(self.option[job])]

    def floor(self, choice: Choice) -> _Floor:
        key = choice.hall, choice.node_type
        if key not in self.floors:
            self.floors[key] = _Floor(self.ground, *key, self.zones)
        return self.floors[key]

    def run(self) -> Placed:
        heap: list[tuple[int, int, int, int, int]] = []
        for job in np.nonzero(self.option >= 0)[0].tolist():
            choice = self.choice(job)
            heap.append((int(self.start[job]), int(not choice.running), -choice.job.gpus, job, 0))
        heapq.heapify(heap)
        while heap:
            _, later, size, job, tries = heapq.heappop(heap)
            if self._place(job):
                continue
            self._use(job, -1)
            moved = None if tries >= _RETRIES or not later else self._move(job)
            if moved is None:
                self._leave_out(job)
            else:
                self.start[job] = moved
                self._use(job, 1)
                heapq.heappush(heap, (moved, later, size, job, tries + 1))
        return Placed(Schedule(self.option, self.start), self.nodes, self.left_out)

    def _place(self, job: int) -> bool:
        choice = self.choice(job)
        kind = self.ground.site.node_types[choice.node_type]
        gpu_w = max(0.0, choice.gpu_power_w - kind.idle_gpu_power_w)
        start, end = self._span(job)
        floor = self.floor(choice)
        if choice.running and choice.job.nodes:
            return self._stay(job, floor, gpu_w, start, end)
        split = floor.find(choice.job.gpus, gpu_w, start, end)
        if split is None:
            return False
        floor.take(split, gpu_w, start, end)
        self.nodes[job] = self._placements([(floor.nodes[node], gpus) for node, gpus in split])
        return True

    def _stay(self, job: int, floor: _Floor, gpu_w: float, start: int, end: int) -> bool:
        spread_out = spread(self.choice(job).job, expand(self.choice(job).job.nodes or ""))
        split = [(floor.index[node], gpus) for node, gpus in spread_out if node in floor.index]
        if not self.zones.fits(floor.loads(split, gpu_w), start, end):
            return False
        if any((floor.free_at[node] <= start).sum() < gpus for node, gpus in split):
            return False
        floor.take(split, gpu_w, start, end)
        self.nodes[job] = self._placements(spread_out)
        return True

    def _placements(self, split: Sequence[tuple[str, int]]) -> tuple[Placement, ...]:
        groups: dict[tuple[str, int], list[str]] = {}
        for node, gpus in split:
            groups.setdefault((self.rack_of[node], gpus), []).append(node)
        return tuple(Placement(rack, compress(nodes), gpus) for (rack, gpus), nodes in groups.items())

    def _move(self, job: int) -> int | None:
        """Return the next start at which nodes become free and every limit of the problem still holds."""
        option = int(self.option[job])
        duration, latest = int(self.problem.option_duration[option]), int(self.problem.option_latest[option])
        uses = self.problem.uses_of(option)
        floor = self.floor(self.choice(job))
        start = floor.next_free(int(self.start[job]))
        while start is not None and start <= latest:
            end = min(start + duration, self.problem.slots)
            if all((self.usage[r, start:end] + a <= self.problem.capacity[r, start:end]).all() for r, a in uses):
                if self.problem.value(job, option, start) <= self.problem.job_wait_value[job]:
                    return None
                return start
            start = floor.next_free(start)
        return None

    def _leave_out(self, job: int) -> None:
        choice = self.choice(job)
        size = (
            f"{choice.job.gpus} free GPUs" if choice.job.gpus <= self.floor(choice).per_node else "enough empty nodes"
        )
        text = f"no row or rack of {choice.hall} has {size} within its limits (enough are free in all, but scattered)"
        self.left_out[job] = ("placement", text)
        self.option[job] = self.start[job] = -1


def place(ground: Ground, built: Built, schedule: Schedule) -> Placed:
    """Place a schedule that holds the problem's limits; the result holds those of rows, racks and feeds as well."""
    return _Placer(ground, built, schedule).run()
