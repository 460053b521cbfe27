"""Shards of jobs: the subproblem of the prices falls apart into jobs, so that workers elsewhere may price them.

A worker prices its shard exactly as a thread here does. What comes back are each job's own figures, put together in
order, and usage in whole units, whose sums no order changes: prices and bound are the same on any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from powerhall.runtime.errors import Retryable
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.kernel_arrays import Columns, Floats, PricedDecisions, ProblemArrays
from powerhall_optimizer.solve.kernels.pricing import price_jobs

if TYPE_CHECKING:
    from powerhall_optimizer.cluster import Cluster
    from powerhall_optimizer.solve.presolve import PresolvedProblem

__all__ = ["ClusterPricing", "Shard", "ShardTask", "price_shard", "shards_of"]

T = TypeVar("T")
_LEAST_JOBS = 500
"""Jobs of a shard, at least: below, sending costs more than pricing."""


class Shard(NamedTuple):
    """Jobs first .. last - 1 of a problem with their options, numbered from 0."""

    first: int
    last: int
    first_option: int
    arrays: ProblemArrays
    resources: int


class ShardTask(NamedTuple):
    """Columns of a shard's jobs, numbered from 0, and prefix sums of the prices of the profiles."""

    columns: Columns
    prefix: Floats


def shards_of(presolved: PresolvedProblem, count: int) -> list[Shard]:
    """Cut a problem into at most `count` shards of about as many columns each."""
    jobs = presolved.problem.jobs
    count = max(1, min(count, jobs // _LEAST_JOBS))
    edges = np.searchsorted(presolved.job_columns, np.linspace(0, presolved.job_columns[-1], count + 1))
    edges[0], edges[-1] = 0, jobs
    return [_shard(presolved, int(a), int(b)) for a, b in pairwise(edges) if b > a]


def _shard(presolved: PresolvedProblem, first: int, last: int) -> Shard:
    p = presolved.arrays
    low, high = int(p.job_options[first]), int(p.job_options[last])
    part = slice(low, high)
    arrays = p._replace(
        job_options=p.job_options[first : last + 1] - low,
        job_value=p.job_value[first:last],
        option_profile=p.option_profile[part],
        option_multiple=p.option_multiple[part],
        option_hall=p.option_hall[part],
        option_duration=p.option_duration[part],
        option_earliest=p.option_earliest[part],
        option_latest=p.option_latest[part],
        option_value=p.option_value[part],
    )
    return Shard(first, last, low, arrays, presolved.problem.resources)


def price_shard(shard: Shard, task: ShardTask) -> tuple[Floats, Ints, Ints, Ints, Floats]:
    """Return gains, options, starts, changes of usage in whole units, and gains of columns of one shard."""
    jobs, slots = shard.last - shard.first, task.prefix.shape[1]
    arrays, columns = _writable(shard.arrays), _writable(task.columns)
    found = PricedDecisions(
        np.zeros(jobs),
        np.zeros(jobs, np.int64),
        np.zeros(jobs, np.int64),
        np.zeros((shard.resources, slots)),
        np.zeros(len(columns.option)),
    )
    price_jobs(arrays, 0, jobs, columns, np.array(task.prefix), found)
    option = np.where(found.option >= 0, found.option + shard.first_option, -1)
    return found.gain, option, found.start, np.rint(found.usage_change).astype(np.int64), found.column_gain


def _writable(arrays: T) -> T:
    """Return a named tuple with arrays that may be written: kernels are compiled for these, and others arrive."""
    assert isinstance(arrays, tuple)
    return type(arrays)(
        *(
            _writable(part) if isinstance(part, tuple) else part if part.flags.writeable else np.array(part)
            for part in arrays
        )
    )


@dataclass(slots=True)
class ClusterPricing:
    """Prices jobs on a cluster; holds the shards of the problem that it priced last.

    A cluster that is lost is not asked again; None then, and of a problem too small for two shards.
    """

    cluster: Cluster
    problem: PresolvedProblem | None = None
    shards: list[Shard] = field(default_factory=list)
    priced: int = 0
    """How often it has priced."""
    lost: str = ""
    """Why the cluster is not asked any more."""

    def price(self, presolved: PresolvedProblem, columns: Columns, prefix: Floats) -> PricedDecisions | None:
        """Return the decisions of all jobs, as `price_jobs` makes them; None where they are to be made here."""
        if self.lost or presolved.problem.jobs < 2 * _LEAST_JOBS:
            return None
        if self.problem is not presolved:
            self.problem, self.shards = presolved, shards_of(presolved, self.cluster.threads)
        try:
            parts = self.cluster.each(price_shard, self.shards, [_task(s, columns, prefix) for s in self.shards])
        except Retryable as error:
            self.lost, self.problem, self.shards = str(error), None, []
            return None
        self.priced += 1
        gain, option, start, usage, column_gain = zip(*parts, strict=True)
        total = sum(usage[1:], usage[0])
        whole = [np.concatenate(rows) for rows in (gain, option, start, column_gain)]
        return PricedDecisions(whole[0], whole[1], whole[2], total.astype(float), whole[3])


def _task(shard: Shard, columns: Columns, prefix: Floats) -> ShardTask:
    low, high = int(columns.pointer[shard.first]), int(columns.pointer[shard.last])
    pointer = columns.pointer[shard.first : shard.last + 1] - low
    return ShardTask(Columns(pointer, columns.option[low:high] - shard.first_option), prefix)
