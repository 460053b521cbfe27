"""Ruin and recreate on the placed schedule (Schrimpf et al. 2000), for jobs that found no nodes as scheduled.

A step clears nodes over the time in which such a job was scheduled, places it there, and places the removed jobs at
their best remaining options. A step that lowers the value is undone.
"""

import random
from collections.abc import Sequence

from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.placement.allowance import STEP_S, Allowance
from powerhall_optimizer.placement.node_occupancy import Split
from powerhall_optimizer.placement.placer import Placer
from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.gang_blocks import Parts

__all__ = ["ruin_and_recreate"]

_SMALL = 0.1
_PATIENCE = 3000
"""Steps in a row without improvement before the search ends."""
_AS_WANTED = 0.5
_MOST_OUT = 40
"""Jobs removed in one step, at most."""
_Cost = tuple[float, int, set[int]]
"""Value of the jobs on a node per GPU, the node, and the jobs."""
_Was = tuple[int, int, Split | None]


def ruin_and_recreate(placer: Placer, wanted: Schedule, settings: RoundSettings, allowance: Allowance) -> None:
    """Bring the placed value closer to that of the schedule before placement.

    Ends when the lost value is a small part of the round's target gap, when no step improves any more, or when the
    allowance is spent. Firm jobs that are at home stay there.
    """
    placer.allowance = allowance
    search = _Search(placer, wanted, settings.seed)
    enough = _SMALL * settings.target_gap * max(0, sum(search.wanted))
    since = 0
    while since < _PATIENCE and sum(search.unlucky.values()) > enough and not allowance.spent:
        allowance.charge(STEP_S)
        since = 0 if search.step() else since + 1


class _Search:
    def __init__(self, placer: Placer, wanted: Schedule, seed: int) -> None:
        self.placer = placer
        self.problem = placer.problem
        self.option: Ints = wanted.option
        self.start: Ints = wanted.start
        self.draw = random.Random(seed)  # noqa: S311 - a search, no secret
        pairs = zip(self.option.tolist(), self.start.tolist(), strict=True)
        self.wanted = [self.problem.value(job, option, start) for job, (option, start) in enumerate(pairs)]
        self.was: dict[int, _Was] = {}
        jobs = placer.built.jobs
        self.movable = [job.state == "waiting" and not placer.homes.hold(n) for n, job in enumerate(jobs)]
        self.unlucky = {job: loss for job in range(len(jobs)) if self.movable[job] and (loss := self._loss(job)) > 0}

    def _loss(self, job: int) -> int:
        """Return the value that a job lost against the schedule before placement."""
        return 0 if self.option[job] < 0 else self.wanted[job] - self.placer.value_of(job)

    def step(self) -> bool:
        """Try one step, keep it unless the value falls, and return whether the value rose."""
        jobs = sorted(self.unlucky)
        weights = [self.unlucky[job] for job in jobs]
        job = self.draw.choices(jobs, weights)[0]
        option, start = self._target(job)
        out = self._in_the_way(option, start)
        if not out:
            out = self.draw.sample(jobs, min(3, len(jobs)))
        before = sum(self._worth(j) for j in {job, *out})
        self.was = {}
        for j in {job, *out}:
            self._out(j)
        if not self.placer.put_new(job, option, start):
            self.placer.place_best(job)
        rest = [j for j in out if j != job]
        rest.sort(key=lambda j: (-self.placer.built.jobs[j].gpus, self.draw.random()))
        for j in rest:
            self.placer.place_best(j)
        after = sum(self._worth(j) for j in self.was)
        if after < before:
            self._undo()
        for j in self.was:
            self._record_loss(j)
        return after > before

    def _worth(self, job: int) -> int:
        """Return the value of a job as it is scheduled, and what leaving its nodes of the last plan must gain."""
        return self.placer.value_of(job) + (self.placer.homes.gain if self.placer.homes.has(job) else 0)

    def _record_loss(self, job: int) -> None:
        """Remember the loss of a job for the next draws, or forget one that is made good."""
        loss = self._loss(job)
        if loss > 0:
            self.unlucky[job] = loss
        else:
            self.unlucky.pop(job, None)
        if self.placer.option[job] >= 0:
            self.placer.left_out.pop(job, None)
        else:
            self.placer.moved.pop(job, None)

    def _target(self, job: int) -> tuple[int, int]:
        """Return a target for a job: as scheduled, or as often any other hall or mode at about that time."""
        option, start = int(self.option[job]), int(self.start[job])
        if self.draw.random() < _AS_WANTED:
            return option, start
        option = self.draw.choice(self.problem.options_of(job))
        first, last = int(self.problem.option_earliest[option]), int(self.problem.option_latest[option])
        return option, min(max(first, start), last)

    def _in_the_way(self, option: int, start: int) -> list[int]:
        """Choose nodes for a job among those of the least value to clear, and return the jobs on them then."""
        choice = self.placer.built.choices[option]
        occupancy = self.placer.occupancy(choice)
        begin, end = self.placer.span(option, start)
        costs: list[_Cost] = []
        for node, users in enumerate(self.placer.users_of(choice)):
            there = {j for j in users if self._overlaps(j, begin, end)}
            if all(self.movable[j] for j in there):
                value = sum(max(0, self.placer.value_of(j)) / self.placer.built.jobs[j].gpus for j in there)
                costs.append((value * self.draw.uniform(0.5, 1.5), node, there))
        costs.sort(key=lambda entry: entry[:2])
        need = -(-choice.job.gpus // occupancy.per_node)
        out: set[int] = set()
        within = self.placer.within(choice)
        if within is not None:
            costs = self._in_blocks(costs, occupancy.blocks_of(within[0]), within[1])
        for _, _, there in costs[: need + self.draw.randint(0, 2)]:
            out |= there
        return sorted(out) if len(out) <= _MOST_OUT else []

    @staticmethod
    def _in_blocks(costs: Sequence[_Cost], block: Ints, parts: Parts) -> list[_Cost]:
        """Return nodes for parts, the cheapest part first, followed by the others of the cheapest part's block."""
        groups: dict[int, list[_Cost]] = {}
        for entry in costs:
            groups.setdefault(int(block[entry[1]]), []).append(entry)
        each = [
            (sum(cost for cost, _, _ in nodes[first : first + parts.nodes]), number, first)
            for number, nodes in groups.items()
            if number >= 0
            for first in range(0, len(nodes) - parts.nodes + 1, parts.nodes)
        ]
        chosen = sorted(each)[: parts.count]
        found = [entry for _, number, first in chosen for entry in groups[number][first : first + parts.nodes]]
        return found + (groups[chosen[0][1]][parts.nodes :] if len(chosen) == 1 else [])

    def _overlaps(self, job: int, begin: int, end: int) -> bool:
        first, last = self.placer.span(int(self.placer.option[job]), int(self.placer.start[job]))
        return first < end and begin < last

    def _out(self, job: int) -> None:
        placer = self.placer
        self.was[job] = int(placer.option[job]), int(placer.start[job]), placer.splits.get(job)
        if placer.option[job] >= 0:
            placer.drop(job)

    def _undo(self) -> None:
        for job in self.was:
            if self.placer.option[job] >= 0:
                self.placer.drop(job)
        for job, (option, start, split) in self.was.items():
            if split is not None:
                self.placer.put_at(job, option, start, split)
