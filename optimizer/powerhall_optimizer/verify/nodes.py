"""Checks of the nodes of jobs: whole gangs, alone and in their blocks, running jobs that stay, GPUs per node."""

from collections.abc import Iterator

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Assignment
from powerhall_optimizer.verify.case import Check, PlanCase, Violation
from powerhall_optimizer.verify.gang_blocks import block_checks
from powerhall_optimizer.verify.loads import slot_span

__all__ = ["NODE_CHECKS"]


def _gang(case: PlanCase) -> Iterator[Violation]:
    """All GPUs of the job, in one hall, on nodes of its type that exist; on one node, or on whole nodes."""
    for job, entry in case.pairs:
        placed = 0
        nodes: list[str] = []
        for placement in entry.placements:
            rack = case.racks.get(placement.rack)
            names = expand(placement.nodes)
            placed += len(names) * placement.gpus_per_node
            nodes += names
            if rack is None or rack.zone.split("/")[0] != entry.hall:
                yield Violation("gang", job.job_id, f"rack {placement.rack} is not in hall {entry.hall}")
            elif rack.node_type != entry.node_type:
                yield Violation(
                    "eligibility", job.job_id, f"rack {rack.zone} holds {rack.node_type}, not {entry.node_type}"
                )
            elif missing := [name for name in names if name not in rack.nodes]:
                yield Violation("gang", job.job_id, f"{missing[0]} is not in rack {rack.zone}")
        due = 0 if entry.beside else job.gpus
        if placed != due or entry.gpus != due:
            yield Violation(
                "gang", job.job_id, f"is placed on {placed} GPUs and planned with {entry.gpus}; needs {due}"
            )
        kind, _ = case.kind_mode(entry)
        if kind is not None and job.state == "waiting" and len(nodes) != -(-job.gpus // kind.gpus):
            yield Violation("gang", job.job_id, f"uses {len(nodes)} nodes; needs {-(-job.gpus // kind.gpus)}")
        if len(set(nodes)) != len(nodes):
            yield Violation("gang", job.job_id, "uses a node twice")


def _running(case: PlanCase) -> Iterator[Violation]:
    """Running jobs stay where they are; only one that may be preempted, or is shed, stops."""
    assigned = {job.job_id for job, _ in case.pairs}
    for job in case.jobs.values():
        if job.state == "running" and job.job_id not in assigned and not job.preemptible:
            code = case.waiting[job.job_id].code if job.job_id in case.waiting else ""
            if code != "shed":
                yield Violation("running", job.job_id, f"is stopped with code {code!r} and may not be preempted")
    for job, entry in case.pairs:
        if job.state == "running":
            yield from _stays(case, job, entry)
        if entry.running != (job.state == "running"):
            yield Violation("running", job.job_id, f"is {job.state} but planned as running={entry.running}")


def _stays(case: PlanCase, job: Job, entry: Assignment) -> Iterator[Violation]:
    if entry.hall != job.hall or entry.start_s != case.snapshot.start_s:
        yield Violation(
            "running", job.job_id, f"runs in {job.hall} now, but is planned in {entry.hall} from {entry.start_s}"
        )
    nodes = sorted(name for placement in entry.placements for name in expand(placement.nodes))
    own = expand(job.nodes)[: max(1, job.gpus)] if job.nodes else ()
    if job.gpus_on_nodes:
        own = tuple(node for node, gpus in zip(expand(job.nodes or ""), job.gpus_on_nodes, strict=False) if gpus)
    if job.nodes and nodes != sorted(own):
        yield Violation("running", job.job_id, f"runs on {job.nodes}, but is planned on other nodes")
    elif job.nodes and job.gpus_on_nodes:
        placed = {name: placement.gpus_per_node for placement in entry.placements for name in expand(placement.nodes)}
        wrong = [n for n, gpus in zip(expand(job.nodes), job.gpus_on_nodes, strict=True) if placed.get(n, 0) != gpus]
        if wrong:
            yield Violation("running", job.job_id, f"has other GPUs on {wrong[0]} than it is planned with")


def _gpus(case: PlanCase) -> Iterator[Violation]:
    """No node carries more GPUs than it has, held ones included, and nothing starts on a node that is closed."""
    closed = {*case.snapshot.off_nodes, *case.snapshot.down_nodes, *case.snapshot.stale_nodes}
    events: dict[str, list[tuple[int, int]]] = {}
    for held in case.snapshot.held:
        for node in expand(held.nodes):
            events.setdefault(node, []).append((0, held.gpus))
    for job, entry in case.pairs:
        first, last = slot_span(case.snapshot, entry)
        for placement in entry.placements:
            for node in expand(placement.nodes):
                events.setdefault(node, []).extend(((first, placement.gpus_per_node), (last, -placement.gpus_per_node)))
                if node in closed and job.state == "waiting":
                    yield Violation(
                        "gpus", node, f"job {job.job_id} starts on a node that is down, off or without telemetry"
                    )
    yield from _shared_gangs(case)
    size = {node: case.site.node_types[r.node_type].gpus for r in case.racks.values() for node in r.nodes}
    for node, changes in events.items():
        used = 0
        for slot, change in sorted(changes):
            used += change
            if used > size.get(node, 0):
                yield Violation("gpus", node, f"{used} GPUs in use at {case.when(slot)}; it has {size.get(node, 0)}")
                break


def _shared_gangs(case: PlanCase) -> Iterator[Violation]:
    """A job larger than a node has its nodes to itself, as far as the plan starts it or what is beside it."""
    spans: dict[str, list[tuple[int, int, bool, bool, str]]] = {}
    for job, entry in case.pairs:
        kind, _ = case.kind_mode(entry)
        gang = kind is not None and job.gpus > kind.gpus
        first, last = slot_span(case.snapshot, entry)
        for placement in entry.placements:
            for node in expand(placement.nodes):
                spans.setdefault(node, []).append((first, last, gang, job.state == "waiting", job.job_id))
    for held in case.snapshot.held:
        for node in expand(held.nodes):
            spans.setdefault(node, []).append((0, case.snapshot.slots, False, False, held.job_id))
    for node, found in spans.items():
        if len(found) > 1 and any(gang for _, _, gang, _, _ in found):
            yield from _overlaps(case, node, sorted(found))


def _overlaps(case: PlanCase, node: str, spans: list[tuple[int, int, bool, bool, str]]) -> Iterator[Violation]:
    for number, (_, last, gang, starts, job_id) in enumerate(spans):
        for first, _, other_gang, other_starts, other in spans[number + 1 :]:
            if first >= last:
                break
            if (gang or other_gang) and (starts or other_starts):
                yield Violation(
                    "gang", node, f"is shared by {job_id} and {other} at {case.when(first)}; a gang is alone"
                )
                return


def _topology(case: PlanCase) -> Iterator[Violation]:
    yield from (Violation("topology", *broken) for broken in block_checks(case.snapshot, case.pairs))


NODE_CHECKS: tuple[Check, ...] = (_gang, _topology, _running, _gpus)
