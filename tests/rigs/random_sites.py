"""Sites, queues and plans at random, with every kind of limit, awkward fractions and all states that a job can have.

They are for comparing two implementations: the plans need not be good, nor keep any limit.
"""

import math
import random

import msgspec

from powerhall.hostlist import compress
from powerhall.jobs import Job
from powerhall.physics.plants.plant import Plant
from powerhall.plan.multi_site import MultiSitePlan, multi_site_hash
from powerhall.plan.plan import (
    PLAN_VERSION,
    Assignment,
    Certificate,
    Objective,
    Placement,
    Plan,
    Planned,
    Snapshot,
    StoragePlan,
    WaitCode,
    Waiting,
    gpu_power_w,
    gpu_speed,
    snapshot_hash,
)
from powerhall.site.storage import Storage
from powerhall.site.topology import Feed, Hall, JobClass, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series

START_S = 1_700_000_100
CLASSES = ("default", "train", "serve")


def random_snapshot(draw: random.Random, name: str = "phx", *, slots: int | None = None, jobs: int = 12) -> Snapshot:
    """Return a snapshot of a random site; its limits lie above what the idle site draws."""
    slots = slots or draw.choice([3, 8, 20, 48])
    site = _site(draw, name, slots)
    nodes = [node for rack in site.racks() for node in rack.nodes]
    weather = draw.random() < 0.8
    dry_c = tuple(round(draw.uniform(-5, 38), 1) for _ in range(slots)) if weather else ()
    zones = [zone for zone in site.zones() if draw.random() < 0.3]
    return Snapshot(
        taken_s=START_S,
        start_s=START_S,
        slot_s=draw.choice([300, 300, 900]),
        slots=slots,
        site=site,
        jobs=random_jobs(draw, [site], jobs),
        dry_bulb_c=dry_c,
        wet_bulb_c=tuple(c - round(draw.uniform(0, 9), 1) for c in dry_c),
        price_per_mwh=_sometimes(draw, slots, -30.0, 400.0),
        carbon_g_per_kwh=_sometimes(draw, slots, 10.0, 600.0),
        down_nodes=tuple(node for node in nodes if draw.random() < 0.05),
        stale_nodes=tuple(node for node in nodes if draw.random() < 0.08) if draw.random() < 0.5 else (),
        allow_raises=draw.random() < 0.5,
        margin_w={zone: draw.uniform(0, 500) for zone in zones},
        objective=_objective(draw),
        stored_j={s.name: draw.uniform(0, s.capacity_j) for s in site.storages if draw.random() < 0.5},
    )


def random_jobs(draw: random.Random, sites: list[Site], count: int) -> tuple[Job, ...]:
    """Return a queue for the sites: waiting and running jobs, some pinned, some late, some for other sites."""
    return tuple(_job(draw, sites, number) for number in range(count))


def with_planned(draw: random.Random, snapshots: list[Snapshot], share: float = 0.4) -> list[Snapshot]:
    """Return the snapshots with a last plan's decisions for some jobs; the same for all."""
    first = snapshots[0]
    entries: list[Planned] = []
    for job in first.jobs:
        if draw.random() < share:
            site = draw.choice(snapshots).site
            hall = draw.choice(site.halls).zone
            mode = draw.choice(["full", "mid", "low"])
            start_s = first.start_s + draw.randint(-2, first.slots) * first.slot_s
            named = site.name if len(snapshots) > 1 else draw.choice([None, site.name])
            entries.append(Planned(job.job_id, hall, mode, start_s, named))
    return [msgspec.structs.replace(s, planned=tuple(entries)) for s in snapshots]


def random_plan(draw: random.Random, snapshot: Snapshot, names: list[str], taken: set[str] | None = None) -> Plan:
    """Return a plan of random decisions; `names` are the resources to price, `taken` who runs already."""
    s, taken = snapshot, set() if taken is None else taken
    entries: list[Assignment] = []
    waiting: list[Waiting] = []
    for job in s.jobs:
        entry = None if job.job_id in taken or draw.random() < 0.3 else _assignment(draw, s, job)
        if entry is not None:
            taken.add(job.job_id)
            entries.append(entry)
        elif job.state == "running" and draw.random() < 0.3 and job.site in (None, s.site.name):
            waiting.append(Waiting(job.job_id, WaitCode.SHED, ""))
        else:
            waiting.append(Waiting(job.job_id, WaitCode.POWER, ""))
    storages = tuple(
        StoragePlan(st.name, tuple(draw.randint(-int(st.charge_w), int(st.discharge_w)) for _ in range(s.slots)), ())
        for st in s.site.storages
    )
    stops = [e for e in entries if e.running and draw.random() < 0.2]
    for entry in stops:
        entries.remove(entry)
        slots = draw.randint(1, max(1, (entry.end_s - entry.start_s) // s.slot_s))
        entries.append(msgspec.structs.replace(entry, end_s=entry.start_s + slots * s.slot_s))
        waiting.append(Waiting(entry.job_id, WaitCode.SHED, ""))
    certificate = random_certificate(draw, names, [st.name for st in s.site.storages], s.slots)
    return Plan(
        version=PLAN_VERSION,
        plan_id=snapshot_hash(s),
        created_s=START_S,
        status="feasible",
        value=0,
        bound=0,
        gap=0.0,
        assignments=tuple(entries),
        waiting=tuple(waiting),
        zones=(),
        snapshot=s,
        certificate=certificate,
        storages=storages,
    )


def random_multi_site_plan(draw: random.Random, snapshots: list[Snapshot], names: list[str]) -> MultiSitePlan:
    """Return plans of several sites over one queue; every job runs at one site at most."""
    taken: set[str] = set()
    plans = tuple(random_plan(draw, s, [], taken) for s in snapshots)
    storages = [f"{s.site.name}:{st.name}" for s in snapshots for st in s.site.storages]
    return MultiSitePlan(
        version=1,
        plan_id=multi_site_hash(snapshots, snapshots[0].jobs),
        created_s=START_S,
        status="feasible",
        value=0,
        bound=0,
        gap=0.0,
        jobs=snapshots[0].jobs,
        plans=plans,
        certificate=random_certificate(draw, names, storages, snapshots[0].slots),
    )


def random_certificate(draw: random.Random, names: list[str], storages: list[str], slots: int) -> Certificate | None:
    """Return prices at random, small and huge; cuts only where no store can be (`.gpus`)."""
    if draw.random() < 0.1:
        return None
    scale = 1 << draw.choice([0, 3, 20, 40])
    largest = draw.choice([3, 10**4, 10**9, 10**15])
    prices = {name: tuple(draw.randint(0, largest) for _ in range(slots)) for name in names if draw.random() < 0.7}
    if draw.random() < 0.4:
        gpus = [name for name in names if name.endswith(".gpus")]
        prices |= {
            f"{name}//{draw.choice([2, 3, 8])}": tuple(draw.randint(0, largest) for _ in range(slots))
            for name in gpus
            if draw.random() < 0.5
        }
    stored = {name: tuple(draw.randint(-largest, largest) for _ in range(slots)) for name in storages}
    return Certificate(scale, prices, {name: row for name, row in stored.items() if draw.random() < 0.8})


def _sometimes(draw: random.Random, slots: int, low: float, high: float) -> tuple[float, ...]:
    return tuple(round(draw.uniform(low, high), 2) for _ in range(slots)) if draw.random() < 0.7 else ()


def _objective(draw: random.Random) -> Objective:
    if draw.random() < 0.3:
        return Objective()
    shares = (round(draw.uniform(0, 0.5), 3) for _ in range(4))
    return Objective(round(draw.uniform(0.1, 5), 2), round(draw.uniform(0, 120), 1), *shares)


def _node_type(draw: random.Random, name: str) -> NodeType:
    gpus = draw.choice([1, 4, 6, 8])
    idle_w = round(draw.uniform(100, 300) * gpus, draw.choice([0, 1, 3]))
    speeds = sorted((round(draw.uniform(0.4, 0.99), 2) for _ in range(2)), reverse=True)
    watts = sorted((round(draw.uniform(0.4, 1.4) * 1000, draw.choice([0, 2])) for _ in range(3)), reverse=True)
    modes = tuple(
        Mode(mode, "power_limit", w, v)
        for mode, w, v in zip(("full", "mid", "low"), watts, (1.0, *speeds), strict=True)
    )
    most_w = watts[0] * gpus * 1.2 + idle_w
    return NodeType(name, name.upper(), gpus, idle_w, most_w, idle_w * 1.1, draw.choice([0.0, 0.3, 0.7, 1.0]), modes)


def _hall(draw: random.Random, name: str, types: dict[str, NodeType], limits: dict[str, float]) -> Hall:
    """Return a hall; `limits` grows by a random limit above its maximum idle draw for some of its zones."""
    rows: list[RackRow] = []
    heaviest_w = 0.0
    for r in range(draw.randint(1, 2)):
        racks: list[Rack] = []
        for k in range(draw.randint(1, 3)):
            kind = types[draw.choice(list(types))]
            zone = f"{name}/r{r}/k{k}"
            nodes = tuple(f"{name}-r{r}-k{k}-n{n}" for n in range(draw.randint(1, 4)))
            top_w = len(nodes) * kind.max_power_w
            heaviest_w += top_w
            racks.append(Rack(zone, kind.name, nodes, _limit(draw, len(nodes) * kind.idle_power_w, top_w)))
        rows.append(
            RackRow(f"{name}/r{r}", tuple(racks), None if draw.random() < 0.7 else heaviest_w * draw.uniform(0.6, 1.2))
        )
    limits[name] = heaviest_w
    losses = Losses(draw.choice([0.0, 1000.0, 333.3]), draw.choice([0.0, 0.031]), draw.choice([0.0, 3.3e-8, 2e-7]))
    plants = _plants(draw, heaviest_w * 1.3 + 2000)
    return Hall(name, tuple(rows), plants, losses, None if draw.random() < 0.5 else heaviest_w * draw.uniform(0.7, 1.2))


def _limit(draw: random.Random, idle_w: float, top_w: float) -> float | None:
    return None if draw.random() < 0.6 else idle_w + 600 + draw.uniform(0.2, 1.2) * max(0.0, top_w - idle_w)


def _plants(draw: random.Random, most_w: float) -> tuple[Plant, ...]:
    def plant(serves: str) -> Plant:
        kind = draw.choice(["fixed", "dry_cooler", "tower_chiller"])
        # A dry cooler's capacity must last on the hottest day that the weather here has.
        supply_c = 45.0 if kind == "dry_cooler" else draw.choice([16.0, 24.0])
        rated_c = 35.0 if kind == "dry_cooler" else 25.0
        capacity_w = most_w * draw.uniform(0.9, 1.4) * (1.5 if kind != "fixed" else 1.0)
        fans = draw.choice([0.0, 4321.5]), draw.choice([0.0, 700.0])
        made = Plant(
            f"p{draw.random()}", kind, capacity_w, serves, supply_c, 10.0, 6.0, rated_c, draw.uniform(3, 9), *fans
        )
        staged = random.Random(made.name)  # of its own, so that the rest of a site does not depend on it
        if staged.random() < 0.7:
            return made
        return msgspec.structs.replace(made, units=staged.randint(1, 4), min_part_load=staged.choice([0.0, 0.3]))

    parts = draw.choice([(), ("all",), ("all", "all"), ("liquid", "air"), ("liquid", "air", "air")])
    return tuple(plant(serves) for serves in parts)


def _site(draw: random.Random, name: str, slots: int) -> Site:
    types = {kind: _node_type(draw, kind) for kind in ("h100", "a100", "b200")[: draw.randint(1, 3)]}
    heaviest: dict[str, float] = {}
    halls = tuple(_hall(draw, f"hall{n}.{draw.choice('ab')}", types, heaviest) for n in range(draw.randint(1, 3)))
    total_w = sum(heaviest.values())
    feeds: list[Feed] = []
    if draw.random() < 0.6:
        feeds.append(Feed("main", tuple(hall.zone for hall in halls), total_w * draw.uniform(0.6, 1.2)))
        part = draw.choice([halls[0].zone, halls[0].rows[0].zone])
        feeds.append(Feed("side", (part,), total_w * draw.uniform(0.8, 1.2), "main"))
    classes = {
        kind: JobClass(
            kind,
            {"full": round(draw.uniform(0.4, 1.1), 3), "low": round(draw.uniform(0.4, 1.0), 3)},
            {"mid": round(draw.uniform(0.3, 1.0), 3)},
        )
        for kind in CLASSES[1:]
    }
    budgets: dict[str, Series] = {}
    for zone in (name, halls[0].zone):
        if draw.random() < 0.5:
            times = sorted(START_S + draw.uniform(-1000, slots * 300) for _ in range(3))
            budgets[zone] = Series(tuple(times), tuple(total_w * draw.uniform(1.0, 1.8) + 9000 for _ in times))
    ramps = [draw.choice([None, draw.uniform(5, 500)]) for _ in range(2)]
    limit_w = None if draw.random() < 0.3 else total_w * draw.uniform(1.0, 1.7) + 9000
    storages = _storages(draw, name, halls, [feed.zone for feed in feeds]) if draw.random() < 0.6 else ()
    return Site(name, halls, types, classes, tuple(feeds), limit_w, budgets, storages, *ramps)


def _storages(draw: random.Random, site: str, halls: tuple[Hall, ...], feeds: list[str]) -> tuple[Storage, ...]:
    found: list[Storage] = []
    for kind in draw.choice([("battery",), ("tank",), ("loop",), ("battery", "tank", "loop"), ("battery", "battery")]):
        hall = draw.choice(halls)
        if kind != "battery" and not hall.plants:
            continue
        media = sorted({plant.serves for plant in hall.plants}) if hall.plants else ["all"]
        capacity_j = draw.uniform(1e6, 4e8)
        shares = draw.uniform(0, 1), draw.uniform(0, 1), draw.uniform(0, 0.3)
        found.append(
            Storage(
                f"{kind}{len(found)}",
                kind,
                draw.choice([site, *feeds]) if kind == "battery" else hall.zone,
                draw.uniform(500, 40_000),
                draw.uniform(500, 40_000),
                capacity_j,
                *(share * capacity_j for share in shares),
                draw.choice(media),
                draw.choice([1.0, 0.88, 0.913]),
                draw.choice([0.0, 0.002, 0.03]) if kind == "tank" else 0.0,
                draw.choice([0.0, 10.0, 33.3]),
                draw.choice([10_000.0, 0.0, 250.0]),
                draw.uniform(1e6, 1e8),
                18.0,
                40.0,
            )
        )
    return tuple(found)


def _job(draw: random.Random, sites: list[Site], number: int) -> Job:
    site = draw.choice(sites)
    hall = draw.choice(site.halls)
    rack = draw.choice(list(hall.racks()))
    kind = site.node_types[rack.node_type]
    name = f"j{number}"
    duration_s = draw.choice([draw.uniform(60, 40_000), draw.randint(1, 200) * 300.0])
    weight = draw.choice([1.0, 2.0, round(draw.uniform(0.01, 50), 2)])
    job_class = draw.choice(CLASSES)
    planned_sites = draw.choice([(), (), (site.name,), ("tokyo",), (site.name, "tokyo")])
    if draw.random() < 0.35:
        nodes = draw.sample(rack.nodes, draw.randint(1, len(rack.nodes)))
        gpus = kind.gpus * len(nodes) if len(nodes) > 1 else draw.randint(1, kind.gpus)
        return Job(
            name,
            gpus,
            duration_s,
            START_S - 9000.0,
            job_class,
            weight,
            sites=planned_sites,
            preemptible=draw.random() < 0.5,
            checkpoint_cost_s=draw.choice([0.0, 600.0, draw.uniform(0, 1e5)]),
            state="running",
            hall=hall.zone,
            node_type=draw.choice([None, kind.name]),
            mode=draw.choice(["full", "mid", "low"]),
            nodes=draw.choice([None, compress(nodes), compress(nodes)]),
            start_s=START_S - 5000.0,
            site=site.name if len(sites) > 1 else draw.choice([None, site.name, "tokyo"]),
        )
    return Job(
        name,
        draw.choice([1, 2, 3, 4, 6, 8, 12, 16, 24, 40]),
        duration_s,
        START_S + draw.choice([-500.0, draw.uniform(-500, 6000)]),
        job_class,
        weight,
        halls=draw.choice([(), (), (hall.zone,)]),
        node_types=draw.choice([(), (), tuple(site.node_types)[:1]]),
        sites=planned_sites,
        earliest_s=draw.choice([None, START_S + draw.uniform(-100, 9000)]),
        deadline_s=draw.choice([None, None, START_S + draw.uniform(-100, 20_000)]),
    )


def _assignment(draw: random.Random, s: Snapshot, job: Job) -> Assignment | None:
    """Return a random run of the job that its filters allow, on nodes at random; None where there is none."""
    if (job.sites and s.site.name not in job.sites) or (job.state == "running" and job.site not in (None, s.site.name)):
        return None
    first = (
        0
        if job.state == "running"
        else max(0, math.ceil((max(job.submit_s, job.earliest_s or 0.0) - s.start_s) / s.slot_s))
    )
    closed = {*s.down_nodes, *s.stale_nodes}
    racks = [(hall, rack) for hall in s.site.halls for rack in hall.racks()]
    if job.state == "running":
        nodes = job.nodes or ""
        named = [(h, r) for h, r in racks if h.zone == job.hall and (job.node_type in (None, r.node_type))]
        racks = [
            (h, r) for h, r in named if not nodes or any(nodes.startswith(n.rstrip("0123456789")) for n in r.nodes)
        ]
    else:
        racks = [
            (h, r)
            for h, r in racks
            if h.zone in (job.halls or (h.zone,)) and r.node_type in (job.node_types or (r.node_type,))
        ]
    if first >= s.slots or not racks:
        return None
    hall, rack = racks[0] if job.state == "running" else draw.choice(racks)
    kind = s.site.node_types[rack.node_type]
    whole = job.gpus if job.gpus <= kind.gpus else -(-job.gpus // kind.gpus) * kind.gpus
    room = sum(kind.gpus for r in hall.racks() if r.node_type == kind.name for node in r.nodes if node not in closed)
    if job.state == "waiting" and whole > room:
        return None
    now_w = next((m.gpu_power_w for m in kind.modes if m.name == job.mode), math.inf)
    modes = [m for m in kind.modes if job.state == "waiting" or s.allow_raises or m.gpu_power_w <= now_w]
    mode = draw.choice(modes)
    job_class = s.site.job_classes.get(job.job_class)
    length = max(1, math.ceil(job.duration_s / gpu_speed(mode, job_class) / s.slot_s - 1e-9))
    start_s = s.start_s + (first if job.state == "running" else draw.randint(first, s.slots - 1)) * s.slot_s
    if job.state == "waiting" and job.deadline_s is not None and start_s + length * s.slot_s > job.deadline_s:
        return None
    placements = tuple(
        Placement(r.zone, compress(draw.sample(r.nodes, draw.randint(1, len(r.nodes)))), draw.randint(1, kind.gpus))
        for r in hall.racks()
        if r.node_type == kind.name
    )
    watts = gpu_power_w(kind, mode, job_class)
    return Assignment(
        job.job_id,
        hall.zone,
        kind.name,
        mode.name,
        job.gpus,
        watts,
        start_s,
        start_s + length * s.slot_s,
        placements,
        job.state == "running",
    )
