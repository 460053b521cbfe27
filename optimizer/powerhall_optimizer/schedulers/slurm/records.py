"""Jobs and nodes of `squeue --json` and `sinfo --json` as plain records."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from powerhall_optimizer.schedulers.slurm.json_rows import JsonRow, json_rows
from powerhall_optimizer.schedulers.slurm.node_states import node_states
from powerhall_optimizer.schedulers.slurm.tres import Gres, parse_gres, tres_gpus

__all__ = ["HOLDS_NODES", "NodeRecord", "Record", "parse_nodes", "parse_queue", "tres_gpus"]

_MAX_ARRAY_TASKS = 10_000
_COUNT = re.compile(r"[0-9]{1,9}")
_UNKNOWN = "UNKNOWN"
HOLDS_NODES = (
    *("COMPLETING", "SUSPENDED", "STOPPED", "RUNNING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "RESIZING"),
    *("POWER_UP_NODE", _UNKNOWN),
)
"""Words of a state, alone or beside another, in which a job has its nodes."""
_NO_NODES = (
    *("PENDING", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"),
    *("OUT_OF_MEMORY", "REVOKED"),
)
"""Words of a state in which a job has no nodes, unless another word says so."""


@dataclass(frozen=True, slots=True)
class Record:
    """A job in Slurm's output; a pending array gives one record per task. Times in seconds since the epoch, 0: none.

    `job_id` is what commands take (`12`, or `12_3` for an array task). `licences` maps names to counts.
    `begin_s` is when it may start; for a job that waits it is what StartTime or --begin asked for.
    `gpus` are those that it has, or asks for at most on `node_count` nodes; `node_gres` is what it has on each of its
    nodes, in order. `min_nodes` and `max_nodes` are what it asks for, 0 for no upper limit.
    """

    job_id: str
    state: str
    reason: str
    gpus: int
    gpu_type: str
    node_count: int
    partition: str
    qos: str
    user: str
    submit_s: int
    begin_s: int
    start_s: int
    time_limit_s: int | None
    priority: int
    licences: dict[str, int]
    required_nodes: str
    features: str
    nodes: str
    comment: str
    admin_comment: str
    restarts: int
    is_het: bool = False
    requeue: bool = False
    excluded_nodes: str = ""
    min_nodes: int = 1
    max_nodes: int = 0
    deadline_s: int = 0
    array_id: int = 0
    array_limit: int = 0
    dependency: str = ""
    reservation: str = ""
    is_exclusive: bool = False
    is_part: bool = False
    """It asks for, or has, parts of GPUs: shards, MPS units, MIG slices."""
    is_per_node: bool = False
    """It asks for GPUs per node or socket, so that more nodes are more GPUs."""
    socket_gpus: int = 0
    """GPUs that it asks for per socket, 0 where it does not: it may get all sockets of a node."""
    node_gres: tuple[Gres, ...] = ()
    asked: Gres = field(default_factory=Gres)
    """What the job asks for, in one of the texts of its request."""
    has_licence_choice: bool = False
    """Its licences are alternatives (`a|b`), to which Slurm takes no other."""
    account: str = ""
    number: int = 0
    """Slurm's own number of it, under which agents know a task of an array; 0 where it is not known yet."""
    segment_nodes: int = 0
    """Nodes of each segment that lies in one block (`--segment`), 0 for none. 26.05 tells it, 24.11 does not."""

    @property
    def is_named(self) -> bool:
        """Whether commands can name the job by its id."""
        return re.fullmatch(r"[0-9]+(?:_[0-9]+)?", self.job_id) is not None

    @property
    def is_held(self) -> bool:
        """Held by anyone: its priority is 0."""
        return self.state == "PENDING" and self.priority == 0


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node: state words in capitals, flags included; generic resources, features, sockets (0: not known)."""

    name: str
    states: frozenset[str]
    gres: str = ""
    features: frozenset[str] | None = None
    sockets: int = 0


def _wanted(row: JsonRow, nodes: int) -> tuple[int, Gres]:
    """Return how many GPUs a job asks for on so many nodes, and the text's resources that say so."""
    sockets = max(1, row.whole("sockets_per_node")) * nodes
    for key, times in (
        ("tres_per_job", 1),
        ("tres_per_node", nodes),
        ("tres_per_task", max(1, row.whole("tasks"))),
        ("tres_per_socket", sockets),
    ):
        gres = parse_gres(row.text(key))
        if gres.whole or gres.is_part:
            return (gres.whole + gres.mig) * times, gres
    return 0, Gres()


def _is_exclusive(row: JsonRow) -> bool:
    """Whether the job takes nodes whole: `shared` is "none" in 22.05, `exclusive` a list of flags later."""
    return "none" in {word.lower() for word in row.words("shared")} or "TRUE" in row.upper("exclusive")


def _licences(text: str) -> dict[str, int]:
    """Return counts by name, which Slurm adds up; none of alternatives, of which it takes one."""
    found: dict[str, int] = {}
    for part in filter(None, re.split("[,;]", "" if "|" in text else text)):
        name, _, count = part.replace("=", ":").partition(":")
        found[name] = found.get(name, 0) + (int(count) if _COUNT.fullmatch(count) else 1)
    return found


def _tasks(text: str) -> list[int] | None:
    """Return the tasks of an array such as `1,3-5%2`; None where Slurm shortened the list or there are too many."""
    tasks: list[int] = []
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?", part)
        if found is None:
            return None
        numbers = range(int(found[1]), int(found[2] or found[1]) + 1, max(1, int(found[3] or 1)))
        if len(tasks) + len(numbers) > _MAX_ARRAY_TASKS:
            return None
        tasks.extend(numbers)
    return tasks


def _ids(row: JsonRow) -> list[str]:
    array = row.whole("array_job_id")
    if not array:
        return [str(row.whole("job_id") or "unknown")]
    if row.is_set("array_task_id"):
        return [f"{array}_{row.whole('array_task_id')}"]
    tasks = _tasks(row.text("array_task_string"))
    return [str(array)] if tasks is None else [f"{array}_{task}" for task in tasks]


def _state(row: JsonRow) -> str:
    """Return the state that counts: one in which it has nodes before others.

    A job of an unknown state that names nodes, or what was allocated to it, has nodes.
    """
    words = {word for text in row.upper("job_state") for word in re.split(r"[^A-Z_]+", text)}
    found = next((word for word in (*HOLDS_NODES, *_NO_NODES) if word in words), "")
    has_place = any(row.text(key) for key in ("nodes", "tres_alloc_str", "gres_detail"))
    return found or (_UNKNOWN if has_place else row.text("job_state"))


def _min_nodes(row: JsonRow, nodes: int) -> int:
    found = re.search(r"(?:^|,)node=([0-9]{1,9})(?:,|$)", row.text("tres_req_str"))
    return int(found[1]) if found else nodes


def _records(row: JsonRow) -> list[Record]:
    nodes = max(1, row.whole("node_count"))
    details = tuple(parse_gres(detail) for detail in row.words("gres_detail"))
    allocated = parse_gres(row.text("tres_alloc_str"))
    asked, wanted = _wanted(row, nodes)
    gpus = max(allocated.whole + allocated.mig, sum(gres.whole + gres.mig for gres in details)) or asked
    kind = next((gres.kind for gres in (allocated, *details) if gres.kind), "")
    limit_min = row.whole("time_limit")
    return [
        Record(
            job_id=job_id,
            state=_state(row),
            reason=row.text("state_reason"),
            gpus=gpus,
            gpu_type=kind or wanted.kind,
            node_count=nodes,
            partition=row.text("partition"),
            qos=row.text("qos"),
            user=row.text("user_name"),
            submit_s=row.whole("submit_time"),
            begin_s=row.whole("eligible_time"),
            start_s=row.whole("start_time"),
            time_limit_s=limit_min * 60 if limit_min > 0 else None,
            priority=row.whole("priority"),
            licences=_licences(row.text("licenses")),
            required_nodes=row.text("required_nodes"),
            features=row.text("features"),
            nodes=row.text("nodes"),
            comment=row.text("comment"),
            admin_comment=row.text("admin_comment"),
            restarts=row.whole("restart_cnt"),
            is_het=row.whole("het_job_id") > 0,
            requeue=bool(row.data.get("requeue")),
            excluded_nodes=row.text("excluded_nodes"),
            min_nodes=_min_nodes(row, nodes),
            max_nodes=max(0, row.whole("max_nodes")),
            deadline_s=max(0, row.whole("deadline")),
            array_id=row.whole("array_job_id"),
            array_limit=max(0, row.whole("array_max_tasks")),
            dependency=row.text("dependency"),
            reservation=row.text("resv_name"),
            is_exclusive=_is_exclusive(row),
            is_part=any(gres.is_part for gres in (*details, allocated, wanted)),
            is_per_node=bool(row.text("tres_per_node") or row.text("tres_per_socket")),
            socket_gpus=parse_gres(row.text("tres_per_socket")).whole,
            node_gres=details,
            asked=wanted,
            has_licence_choice="|" in row.text("licenses"),
            account=row.text("account"),
            number=row.whole("job_id"),
            segment_nodes=max(0, row.whole("segment_size")),
        )
        for job_id in _ids(row)
    ]


def parse_queue(text: str) -> list[Record]:
    """Read `squeue --json`."""
    rows = (record for row in json_rows(text, "squeue", "jobs") for record in _records(row))
    return _separate(rows)


def _separate(records: Iterable[Record]) -> list[Record]:
    """Return the records under ids of their own: of several with one id the first that waits or has nodes keeps it.

    Others that have nodes are allocations too, and become `12#2`, which no command takes: counted, not planned.
    """
    found: dict[str, Record] = {}
    again: dict[str, list[Record]] = {}
    for record in records:
        before = found.get(record.job_id)
        if before is None or before.state not in ("PENDING", *HOLDS_NODES):
            found[record.job_id] = record
        elif record.state in HOLDS_NODES and record not in (before, *again.get(record.job_id, ())):
            again.setdefault(record.job_id, []).append(record)
    more = (replace(one, job_id=f"{job}#{n}") for job, rows in again.items() for n, one in enumerate(rows, 2))
    return [*found.values(), *more]


def parse_nodes(text: str) -> list[NodeRecord]:
    """Read `sinfo --json`: one object per node in 22.05, one per group of like nodes later."""
    found: dict[str, NodeRecord] = {}
    for row in json_rows(text, "sinfo", "nodes", "sinfo"):
        if name := row.text("name"):
            states, names = node_states([*row.words("state"), *row.words("state_flags")]), [name]
            gres, features = row.text("gres"), _features(row, "active_features", "features")
        else:
            states, names = node_states(row.row("node").words("state")), row.row("nodes").words("nodes")
            gres, features = row.row("gres").text("total"), _features(row.row("features"), "active", "total")
        sockets = max(row.whole("sockets"), row.row("sockets").whole("maximum"))
        found |= {name: NodeRecord(name, states, gres, features, sockets) for name in names}
    return list(found.values())


def _features(row: JsonRow, *keys: str) -> frozenset[str] | None:
    """Return the features of a node; None where the answer does not have them."""
    key = next((key for key in keys if row.data.get(key) is not None), None)
    if key is None:
        return None
    return frozenset(word.strip() for text in row.words(key) for word in text.split(",") if word.strip())
