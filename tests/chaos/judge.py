"""Judges an episode by what was seen and what was granted. Shares no code with the product.

Times are seconds of the monotonic clock. The promises, and how a busy machine and the faults themselves count:

* **safe**: 2 s after the end of the last valid lease, every GPU that answers is at or below its safe limit, also
  where the harness has stopped the capper (SIGSTOP). A GPU that comes back, or whose limit another program changed, has
  2 s from then; there the time for which the capper was stopped, at most until the unit's watchdog ends it, does not
  count. Nor does time in which the capper had no CPU although it was ready.
* **granted**: at no moment, the future included, do leases that are valid together exceed a budget.
* **limits**: at no moment do the limits of the GPUs exceed a budget. Watts of a GPU that does not answer, or came back
  less than 2 s ago, count as what its node may hold: nobody can lower them. So do those of a node whose capper the
  machine starved.
* **bounded**: no lease ends after its plan; none is of an older plan than a lease before it, or of another site.
* **restored**, **alive**, **memory**, **traceback**: see `episode.py`, which asks for them at the end.

A budget that falls binds from its moment, or when the last lease has run out that was granted before the planner was
told.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from chaos.observer import Sample

SAFE_WITHIN_S = 2.0
_SAMPLING_S = 0.15
"""A sample may lie this long after the moment that it shows."""
_WATT = 1.0
_STARVED_S = 0.2
"""From this long without CPU in the last seconds a node counts as starved."""


@dataclass(frozen=True)
class Violation:
    """A broken promise."""

    rule: str
    time_s: float
    text: str


@dataclass(frozen=True)
class Grant:
    """A lease as it was granted; `end_s` is when it ends by the planner's own count, whatever clocks say.

    `void_s` is when the node confirmed a newer lease: no budget is held for this one from then on.
    """

    node: str
    sequence: int
    plan_id: str
    issued_s: float
    end_s: float
    run_s: float
    caps_w: dict[int, float]
    void_s: float = float("inf")


@dataclass(frozen=True)
class Step:
    """A budget from a moment on; `known_s` is when the planner was told. Leases of before could not know it."""

    time_s: float
    budget_w: float
    known_s: float


@dataclass(frozen=True)
class Zone:
    """A zone with its nodes and its budget over time."""

    name: str
    nodes: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass
class Facts:
    """All that the judge knows of an episode."""

    samples: list[Sample]
    grants: list[Grant]
    zones: tuple[Zone, ...]
    safe_w: float
    extra_w: float
    """What a GPU's share of the node draws beside the GPU."""
    start_s: float
    stop_s: float
    begun_s: dict[str, float] = field(default_factory=dict)
    """Per node the start of the first capper that lived long enough to cap: the first 2 s count from it."""
    frozen: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    touched: list[tuple[str, int, float]] = field(default_factory=list)
    """Limits that another program changed: node, GPU, time. The capper has 2 s from then, too."""
    plan_order: dict[str, int] = field(default_factory=dict)
    plan_end_s: dict[str, float] = field(default_factory=dict)


def judge(facts: Facts) -> list[Violation]:
    """Return the violations of every rule that needs no question to the processes."""
    return [*_safe(facts), *_granted(facts), *_limits(facts), *_bounded(facts)]


class _Time:
    """How much of a span counts for a node: without the time in which its capper was stopped or starved."""

    def __init__(self, facts: Facts, node: str) -> None:
        self._times = [sample.time_s for sample in facts.samples]
        self._starved = [sample.starved_s[node] for sample in facts.samples]
        self._frozen = facts.frozen.get(node, [])

    def counted_s(self, begin_s: float, end_s: float) -> float:
        stopped_s = sum(max(0.0, min(end_s, b) - max(begin_s, a)) for a, b in self._frozen)
        return self.awake_s(begin_s, end_s) - stopped_s

    def awake_s(self, begin_s: float, end_s: float) -> float:
        return end_s - begin_s - self.starved_s(begin_s, end_s)

    def starved_s(self, begin_s: float, end_s: float) -> float:
        return self._at(end_s) - self._at(begin_s)

    def _at(self, time_s: float) -> float:
        index = bisect_right(self._times, time_s) - 1
        return self._starved[max(0, index)]


def _allowed_w(facts: Facts, node: str, gpu: int, time_s: float, span: _Time) -> float:
    """Return the highest limit that a lease within its time, or less than 2 s over it, allows."""
    most_w = facts.safe_w
    for grant in facts.grants:
        if grant.node != node or time_s < grant.issued_s - _SAMPLING_S:
            continue
        cap_w = grant.caps_w.get(gpu, facts.safe_w)
        if cap_w > most_w and (
            time_s <= grant.end_s or span.awake_s(grant.end_s, time_s) <= SAFE_WITHIN_S + _SAMPLING_S
        ):
            most_w = cap_w
    return most_w


def _safe(facts: Facts) -> Iterator[Violation]:
    for node in facts.samples[0].limits_w if facts.samples else ():
        span = _Time(facts, node)
        back_s: dict[int, float] = {}
        told: set[int] = set()
        begun_s = facts.begun_s.get(node, facts.start_s)
        touched = sorted((at_s, gpu) for name, gpu, at_s in facts.touched if name == node)
        for sample in facts.samples:
            while touched and touched[0][0] <= sample.time_s:
                at_s, gpu = touched.pop(0)
                back_s[gpu] = at_s
            for gpu, limit_w in enumerate(sample.limits_w[node]):
                if not sample.answers[node][gpu]:
                    back_s[gpu] = sample.time_s
                    continue
                since_s = back_s.get(gpu, begun_s)
                if sample.time_s >= facts.stop_s or gpu in told:
                    continue
                if span.counted_s(since_s, sample.time_s) <= SAFE_WITHIN_S + _SAMPLING_S:
                    continue
                allowed_w = _allowed_w(facts, node, gpu, sample.time_s, span)
                if limit_w > allowed_w + _WATT:
                    told |= set(range(len(sample.limits_w[node])))
                    text = f"{node} GPU {gpu} at {limit_w:.0f} W of {[round(w) for w in sample.limits_w[node]]}"
                    yield Violation("safe", sample.time_s, f"{text}; allowed are {allowed_w:.0f} W")


def _held_w(facts: Facts, node: str, gpus: int, time_s: float) -> list[float]:
    """Return the limits in W that the leases of a node allow at a moment; the highest per GPU."""
    held = [facts.safe_w] * gpus
    for grant in facts.grants:
        if grant.node == node and grant.issued_s <= time_s < min(grant.end_s, grant.void_s):
            held = [max(held[gpu], grant.caps_w.get(gpu, facts.safe_w)) for gpu in range(gpus)]
    return held


def _budget_w(facts: Facts, zone: Zone, time_s: float, grace_s: float) -> float:
    """Return the budget in force: a fall waits for the leases that were granted before the planner knew of it."""
    budget_w = float("inf")
    for step in zone.steps:
        if time_s < step.time_s:
            break
        from_s = step.time_s
        if step.budget_w < budget_w:
            before = [grant.end_s for grant in facts.grants if grant.run_s <= step.known_s]
            from_s = max([from_s, *before])
        if step.budget_w > budget_w or time_s >= from_s + grace_s:
            budget_w = step.budget_w
    return budget_w


def _granted(facts: Facts) -> Iterator[Violation]:
    edges = {grant.issued_s + 0.001 for grant in facts.grants}
    edges |= {step.time_s + 0.001 for zone in facts.zones for step in zone.steps}
    gpus = {node: len(limits) for node, limits in facts.samples[0].limits_w.items()} if facts.samples else {}
    for zone in facts.zones:
        for time_s in sorted(edges):
            draw_w = sum(
                sum(_held_w(facts, node, gpus[node], time_s)) + facts.extra_w * gpus[node] for node in zone.nodes
            )
            budget_w = _budget_w(facts, zone, time_s, 0.0)
            if draw_w > budget_w + _WATT:
                yield Violation(
                    "granted", time_s, f"{zone.name}: leases allow {draw_w:.0f} W; the budget is {budget_w:.0f} W"
                )
                break


def _limits(facts: Facts) -> Iterator[Violation]:
    spans = {node: _Time(facts, node) for node in (facts.samples[0].limits_w if facts.samples else ())}
    back_s: dict[tuple[str, int], float] = {}
    told: set[str] = set()
    for sample in facts.samples:
        for node, answers in sample.answers.items():
            back_s |= {(node, gpu): sample.time_s for gpu, is_well in enumerate(answers) if not is_well}
        back_s |= {(node, gpu): at_s for node, gpu, at_s in facts.touched if sample.time_s - 1 < at_s <= sample.time_s}
        if not facts.start_s + SAFE_WITHIN_S + 1.0 < sample.time_s < facts.stop_s:
            continue
        for zone in facts.zones:
            draw_w = sum(_counted_w(facts, sample, node, spans[node], back_s) for node in zone.nodes)
            budget_w = _budget_w(facts, zone, sample.time_s, SAFE_WITHIN_S)
            if draw_w > budget_w + _WATT and zone.name not in told:
                told.add(zone.name)
                each = {node: [round(w) for w in sample.limits_w[node]] for node in zone.nodes}
                yield Violation(
                    "limits", sample.time_s, f"{zone.name}: {draw_w:.0f} W; the budget is {budget_w:.0f} W; {each}"
                )


def _counted_w(facts: Facts, sample: Sample, node: str, span: _Time, back_s: dict[tuple[str, int], float]) -> float:
    limits_w = sample.limits_w[node]
    held_w = _held_w(facts, node, len(limits_w), sample.time_s)
    is_starved = span.starved_s(sample.time_s - 3.0, sample.time_s) > _STARVED_S
    total_w = 0.0
    for gpu, limit_w in enumerate(limits_w):
        since_s = back_s.get((node, gpu), float("-inf"))
        is_out = span.counted_s(since_s, sample.time_s) <= SAFE_WITHIN_S + _SAMPLING_S
        total_w += facts.extra_w + (min(limit_w, held_w[gpu]) if is_out or is_starved else limit_w)
    return total_w


def _bounded(facts: Facts) -> Iterator[Violation]:
    newest = -1
    for grant in sorted(facts.grants, key=lambda grant: grant.run_s):
        order = facts.plan_order.get(grant.plan_id, -1)
        if order < 0:
            yield Violation("bounded", grant.issued_s, f"{grant.node}: a lease of a plan of another site")
        elif order < newest:
            yield Violation("bounded", grant.issued_s, f"{grant.node}: a lease of plan {order} after plan {newest}")
        if grant.end_s > facts.plan_end_s.get(grant.plan_id, float("inf")) + 0.1:
            over_s = grant.end_s - facts.plan_end_s[grant.plan_id]
            yield Violation("bounded", grant.issued_s, f"{grant.node}: ends {over_s:.1f} s after its plan")
        newest = max(newest, order)
