"""Small sites and plans made of core's structs, for tests of plan readers: greedy, and valid by construction."""

from collections.abc import Sequence

from powerhall.hostlist import compress, expand
from powerhall.jobs.model import Job
from powerhall.plan.plan import PLAN_VERSION, Assignment, Placement, Plan, Snapshot, Waiting, ZonePlan, snapshot_hash
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site

GPU_POWER_W = 1250.0
"""A busy GPU at the fastest mode: a node of eight makes 10 kW."""


def small_site(nodes: Sequence[str], *, power_limit_w: float = 60_000.0, idle_power_w: float = 0.0) -> Site:
    """Return a site of one hall with racks of four nodes."""
    modes = (
        Mode("fast", "power_limit", GPU_POWER_W, 1.0, gpu_power_limit_w=700.0),
        Mode("eco", "power_limit", 1000.0, 0.9, gpu_power_limit_w=500.0),
    )
    kind = NodeType("hgx", "h200", 8, idle_power_w, 10_200.0, 6_000.0, 0.8, modes)
    racks = tuple(
        Rack(f"hall1/r1/k{start // 4 + 1}", "hgx", tuple(nodes[start : start + 4])) for start in range(0, len(nodes), 4)
    )
    hall = Hall("hall1", (RackRow("hall1/r1", racks),), (), Losses())
    return Site("plant", (hall,), {"hgx": kind}, power_limit_w=power_limit_w)


class _Room:
    """Power and GPUs that are still free, per slot."""

    def __init__(self, site: Site, budget_w: Sequence[int]) -> None:
        self.free_w = list(budget_w)
        self.gpus = {node: [8] * len(budget_w) for rack in site.racks() for node in rack.nodes}

    def nodes(self, job: Job, first: int, last: int) -> list[str] | None:
        """Return nodes that have the job's GPUs free in these slots."""
        each, count = min(8, job.gpus), max(1, job.gpus // 8)
        free = [node for node, left in self.gpus.items() if min(left[first:last]) >= each]
        return free[:count] if len(free) >= count else None

    def take(self, job: Job, nodes: Sequence[str], first: int, last: int, power_w: float) -> None:
        for slot in range(first, last):
            self.free_w[slot] -= round(power_w)
            for node in nodes:
                self.gpus[node][slot] -= min(8, job.gpus)


def greedy_plan(
    site: Site,
    jobs: Sequence[Job],
    *,
    start_s: int,
    slot_s: int,
    budget_w: Sequence[int],
    mode: str = "fast",
    stopped: Sequence[str] = (),
) -> Plan:
    """Place running jobs, then the others by weight and age at their first slot that fits; what does not fit waits."""
    slots = len(budget_w)
    snapshot = Snapshot(start_s, start_s, slot_s, slots, site, tuple(jobs))
    room = _Room(site, budget_w)
    power_w = {m.name: m.gpu_power_w for m in site.node_types["hgx"].modes}
    placed: list[Assignment] = []
    waiting: list[Waiting] = []
    for job in sorted(jobs, key=lambda j: (j.state != "running", -j.weight, j.submit_s, len(j.job_id), j.job_id)):
        made = None if job.job_id in stopped else _place(job, room, snapshot, mode, power_w)
        if made is None:
            waiting.append(
                Waiting(job.job_id, "power", f"waits for {job.gpus * power_w[mode] / 1e3:g} kW in {site.name}")
            )
        else:
            placed.append(made)
    used = [budget - free for budget, free in zip(budget_w, room.free_w, strict=True)]
    zones = tuple(ZonePlan(zone, tuple(used), tuple(budget_w)) for zone in (site.name, "hall1"))
    return Plan(
        PLAN_VERSION,
        snapshot_hash(snapshot),
        start_s,
        "feasible",
        1,
        1,
        0.0,
        tuple(placed),
        tuple(waiting),
        zones,
        snapshot,
    )


def _place(job: Job, room: _Room, snapshot: Snapshot, mode: str, power_w: dict[str, float]) -> Assignment | None:
    name = job.mode if job.state == "running" and job.mode else mode
    draw_w = job.gpus * power_w[name]
    length = max(1, -(-int(job.duration_s) // snapshot.slot_s))
    from_s = max(snapshot.start_s, job.earliest_s or 0)
    first_slot = -(-int(from_s - snapshot.start_s) // snapshot.slot_s)
    last_slot = 1 if job.state == "running" else snapshot.slots
    for first in range(first_slot, last_slot):
        last = min(snapshot.slots, first + length)
        if min(room.free_w[first:last]) < draw_w and job.state != "running":
            continue
        nodes = list(expand(job.nodes)) if job.nodes else room.nodes(job, first, last)
        if nodes is None:
            continue
        room.take(job, nodes, first, last, draw_w)
        begin_s = int(job.start_s) if job.start_s is not None else snapshot.start_s + first * snapshot.slot_s
        places = (Placement("hall1/r1/k1", compress(sorted(nodes)), min(8, job.gpus)),)
        running = job.state == "running"
        end_s = snapshot.start_s + (first + length) * snapshot.slot_s
        return Assignment(
            job.job_id,
            "hall1",
            "hgx",
            name,
            job.gpus,
            power_w[name],
            begin_s,
            end_s,
            places,
            running,
            f"fits in hall1 ({name})",
        )
    return None
