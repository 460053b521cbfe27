"""Answers of Slurm about a site of two halls, the snapshot read from them, and random worlds with their watts."""

import json

import msgspec

from powerhall.hostlist import compress
from powerhall.jobs.job_files import decode_job_list
from powerhall.plan.plan import Snapshot
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall_optimizer.inputs.left_out_jobs import fitting_jobs
from powerhall_optimizer.inputs.observed_nodes import observed_nodes
from powerhall_optimizer.schedulers.job_fields import JobFields
from powerhall_optimizer.schedulers.slurm.queue import to_queue
from powerhall_optimizer.schedulers.slurm.records import parse_nodes, parse_queue
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

NOW_S = 1_795_880_000
SETTINGS = SlurmSettings(fields=JobFields(node_types={"h200": "hgx", "4090": "pcie"}))
IDLE_W = {"hgx": 1600.0, "pcie": 1200.0}
GPU_W = {"hgx": 1250.0, "pcie": 750.0}
GRES = {"hgx": "gpu:h200:8,shard:h200:32", "pcie": "gpu:4090:8"}


def site():
    """Eight nodes gn01-08 in hall1, four nodes gn09-12 of another type in hall2, all of eight GPUs."""
    kinds = {
        name: NodeType(name, name, 8, IDLE_W[name], 8 * GPU_W[name], 3_000.0, 0.5,
                       (Mode("full", "power_limit", GPU_W[name], 1.0, gpu_power_limit_w=400.0),))
        for name in IDLE_W
    }  # fmt: skip
    halls = []
    for hall, kind, first, last in (("hall1", "hgx", 1, 9), ("hall2", "pcie", 9, 13)):
        rack = Rack(f"{hall}/a/r", kind, tuple(f"gn{n:02d}" for n in range(first, last)))
        halls.append(Hall(hall, (RackRow(f"{hall}/a", (rack,)),), (), Losses()))
    return Site("plant", tuple(halls), kinds, power_limit_w=1e6)


SITE = site()
KIND = {node: rack.node_type for rack in SITE.racks() for node in rack.nodes}


def number(value, *, modern):
    if not modern:
        return value
    return {"set": value is not None, "infinite": False, "number": value or 0}


def job(job_id, *, modern=True, state="RUNNING", **more):
    row = {
        "job_id": job_id, "job_state": [state] if modern else state, "state_reason": "None", "partition": "gpu",
        "submit_time": number(NOW_S - 700, modern=modern), "start_time": number(NOW_S - 600, modern=modern),
        "eligible_time": number(NOW_S - 700, modern=modern), "time_limit": number(60, modern=modern),
        "priority": number(100, modern=modern), "node_count": number(1, modern=modern), "licenses": "kw:10",
    }  # fmt: skip
    return row | more


def nodes_json(states, *, modern, gres_of=None):
    """Return `sinfo --json` of nodes with these state words."""
    rows = []
    for name, words in states.items():
        gres = (GRES | (gres_of or {}))[KIND[name]]
        if modern:
            rows.append({"node": {"state": words}, "nodes": {"nodes": [name]}, "gres": {"total": gres}})
        else:
            rows.append({"name": name, "state": words[0].lower(), "state_flags": words[1:], "gres": gres})
    return json.dumps({"sinfo" if modern else "nodes": rows})


def seen(jobs, states=None, *, modern=True, settings=SETTINGS, site=SITE, gres_of=None):
    """Return the queue and the snapshot of an answer, through the document that `queue` writes."""
    states = {name: ["IDLE"] for name in KIND} if states is None else states
    nodes = parse_nodes(nodes_json(states, modern=modern, gres_of=gres_of))
    queue = to_queue(parse_queue(json.dumps({"jobs": jobs})), nodes, site, settings, NOW_S)
    found = decode_job_list([msgspec.Raw(msgspec.json.encode(one)) for one in queue.jobs], "queue")
    fitting = fitting_jobs(site, found.jobs, "queue")
    left_out = (*found.left_out, *fitting.left_out)
    snapshot = Snapshot(NOW_S, NOW_S, 300, 12, site, fitting.jobs, left_out=left_out)
    return queue, observed_nodes(snapshot, queue.down_nodes, queue.off_nodes)


def gpus_text(kind, numbers, modern):
    return f"gpu:{'h200' if kind == 'hgx' else '4090'}:{len(numbers)}(IDX:{','.join(map(str, numbers))})"


def random_world(draw, *, modern):
    """Return rows of jobs, states of nodes and the true power in W."""
    free = {node: list(range(8)) for node in KIND}
    rows, busy = [], {}
    for job_id in range(1, draw.randint(2, 16)):
        open_nodes = [node for node in free if free[node]]
        nodes = sorted(draw.sample(open_nodes, min(len(open_nodes), draw.choice([1, 1, 1, 2, 3, 4]))))
        details = []
        is_shard = draw.random() < 0.2
        for node in nodes:
            count = draw.randint(1, len(free[node]))
            if is_shard and KIND[node] == "hgx":
                numbers = [free[node][0]]
                details.append(f"shard:h200:{draw.randint(1, 4)}(IDX:{numbers[0]})")
                busy.setdefault(node, set()).update(numbers)
                if draw.random() < 0.5:  # another job may have parts of the same GPU
                    free[node] = free[node][1:]
                continue
            numbers, free[node] = free[node][:count], free[node][count:]
            numbers = [n for n in numbers if n not in busy.get(node, set())]
            busy.setdefault(node, set()).update(numbers)
            details.append(gpus_text(KIND[node], numbers, modern))
        free = {node: [n for n in left if is_shard or n not in busy.get(node, set())] for node, left in free.items()}
        state = draw.choice(["RUNNING", "RUNNING", "COMPLETING", "SUSPENDED"])
        extra = {"name": draw.choice(["caf\ufffd", "caf\udce9"])} if draw.random() < 0.2 else {}
        rows.append(
            job(job_id, modern=modern, state=state, nodes=compress(nodes), gres_detail=details,
                node_count=number(len(nodes), modern=modern), tres_alloc_str="cpu=1,node=1", **extra)
        )  # fmt: skip
        if not any(free.values()):
            break
    states = {}
    for node in KIND:
        words = [draw.choice(["IDLE", "MIXED", "ALLOCATED"])]
        words += draw.sample(["DRAIN", "NOT_RESPONDING", "MAINTENANCE", "POWERED_DOWN"], draw.choice([0, 0, 1, 2]))
        states[node] = draw.choice([words, ["DOWN"]]) if draw.random() < 0.3 else words
    off = {
        node
        for node, words in states.items()
        if "POWERED_DOWN" in words and len(set(words) - {"POWERED_DOWN", "IDLE", "MIXED", "ALLOCATED"}) > 0
    }
    total_w = 0.0
    for node, kind in KIND.items():
        gpus = len(busy.get(node, ()))
        if gpus or node not in off:
            total_w += IDLE_W[kind] + gpus * (GPU_W[kind] - IDLE_W[kind] / 8)
    return rows, states, total_w


def pending(job_id, **more):
    return job(job_id, state="PENDING", **{"nodes": "", "tres_per_node": "gres/gpu:h200:8", "start_time": 0} | more)
