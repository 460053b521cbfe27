"""Output of `squeue --json` and `sinfo --json` as plain records: the shapes of Slurm 22.05 and of 23.11 and later.

Slurm 22.05 (openapi v0.0.38) writes plain numbers, states as text and TRES as `gres:gpu:8`; later versions
(data_parser v0.0.4x) write numbers as {"set", "infinite", "number"}, states as lists and TRES as `gres/gpu:8`.
"""

import json
import re
from dataclasses import dataclass

from powerhall.runtime.errors import Rejected

__all__ = ["NodeRecord", "Record", "parse_nodes", "parse_queue", "tres_gpus"]

_MAX_ARRAY_TASKS = 10_000
_NO_VALUE = 4_294_967_294
_GPU = re.compile(r"(?:gres[:/])?gpu(?:[:=]([A-Za-z_][\w.-]*))?(?:[:=](\d+))?(?![\w-])")


@dataclass(frozen=True, slots=True)
class Record:
    """A job in Slurm's output; a pending array gives one record per task. Times in seconds since the epoch, 0: none.

    `job_id` is what commands take (`12`, or `12_3` for an array task). `licences` maps names to counts.
    `begin_s` is when it may start; for a job that waits it is what StartTime or --begin asked for.
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

    @property
    def is_held(self) -> bool:
        """Held by anyone: its priority is 0."""
        return self.state == "PENDING" and self.priority == 0


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node and its state words in capitals, flags included."""

    name: str
    states: frozenset[str]


class _JsonRow:
    """One object of Slurm's JSON, read by field in either shape."""

    def __init__(self, data: dict[str, object]) -> None:
        self.data = data

    def whole(self, key: str) -> int:
        """Return a number, 0 where it is not set; an infinite one is -1."""
        value = self.data.get(key)
        if isinstance(value, dict):
            if value.get("infinite"):
                return -1
            value = value.get("number") if value.get("set") else 0
        if not isinstance(value, int | float) or value in (_NO_VALUE, _NO_VALUE + 1):
            return -1 if value == _NO_VALUE + 1 else 0
        return int(value)

    def is_set(self, key: str) -> bool:
        """Return whether a number is set (an array's task id may be 0)."""
        value = self.data.get(key)
        return bool(value.get("set")) if isinstance(value, dict) else isinstance(value, int)

    def text(self, key: str) -> str:
        """Return text; of a list its first item. Quotes that scontrol kept around a value are taken off."""
        value = self.data.get(key)
        if isinstance(value, list):
            value = value[0] if value else ""
        value = value if isinstance(value, str) else ""
        return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value

    def words(self, key: str) -> list[str]:
        """Return a list of text; text is a list of one."""
        value = self.data.get(key)
        if isinstance(value, str):
            return [value]
        return [str(item) for item in value] if isinstance(value, list) else []

    def row(self, key: str) -> "_JsonRow":
        """Return a nested object."""
        value = self.data.get(key)
        return _JsonRow(value if isinstance(value, dict) else {})


def tres_gpus(text: str) -> tuple[int, str]:
    """Return the GPUs of a TRES text (`gres:gpu:h200:8`, `gres/gpu:8`, `gres/gpu:h200=8,gres/gpu=8`) and their type."""
    total = typed = 0
    kind = ""
    for found in _GPU.finditer(text):
        count = int(found[2]) if found[2] else 1
        if found[1]:
            typed, kind = typed + count, found[1]
        else:
            total += count
    return max(total, typed), kind


def _gpus(row: _JsonRow, nodes: int) -> tuple[int, str]:
    """Return GPUs and type of a job: allocated ones where it runs, otherwise from what it asked for."""
    allocated, kind = tres_gpus(row.text("tres_alloc_str"))
    if allocated:
        return allocated, kind
    if details := row.words("gres_detail"):
        pairs = [tres_gpus(re.sub(r"\(.*?\)", "", detail)) for detail in details]
        return sum(count for count, _ in pairs), next((kind for _, kind in pairs if kind), "")
    sockets = max(1, row.whole("sockets_per_node")) * nodes
    for key, times in (
        ("tres_per_job", 1),
        ("tres_per_node", nodes),
        ("tres_per_task", max(1, row.whole("tasks"))),
        ("tres_per_socket", sockets),
    ):
        count, kind = tres_gpus(row.text(key))
        if count:
            return count * times, kind
    return 0, ""


def _licences(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, count = part.replace("=", ":").partition(":")
        found[name] = int(count) if count.isdigit() else 1
    return found


def _tasks(text: str) -> list[int] | None:
    """Return the tasks of an array such as `1,3-5%2`; None where Slurm shortened the list or there are too many."""
    tasks: list[int] = []
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if found is None:
            return None
        first, last = int(found[1]), int(found[2] or found[1])
        tasks.extend(range(first, last + 1, int(found[3] or 1)))
        if len(tasks) > _MAX_ARRAY_TASKS:
            return None
    return tasks


def _ids(row: _JsonRow) -> list[str]:
    array = row.whole("array_job_id")
    if not array:
        return [str(row.whole("job_id"))]
    if row.is_set("array_task_id"):
        return [f"{array}_{row.whole('array_task_id')}"]
    tasks = _tasks(row.text("array_task_string"))
    return [str(array)] if tasks is None else [f"{array}_{task}" for task in tasks]


def _records(row: _JsonRow) -> list[Record]:
    nodes = max(1, row.whole("node_count"))
    gpus, kind = _gpus(row, nodes)
    limit_min = row.whole("time_limit")
    return [
        Record(
            job_id=job_id,
            state=row.text("job_state"),
            reason=row.text("state_reason"),
            gpus=gpus,
            gpu_type=kind,
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
        )
        for job_id in _ids(row)
    ]


def _rows(text: str, program: str, *keys: str) -> list[_JsonRow]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise _refusal(program, f"not valid JSON: {error}") from None
    if isinstance(data, dict):
        for key in keys:
            if isinstance(data.get(key), list):
                return [_JsonRow(item) for item in data[key] if isinstance(item, dict)]
    raise _refusal(program, f"must have a list {' or '.join(keys)}")


def _refusal(program: str, why: str) -> Rejected:
    return Rejected(f"{program} --json: {why}; Slurm 21.08 or later is needed")


def parse_queue(text: str) -> list[Record]:
    """Read `squeue --json`."""
    return [record for row in _rows(text, "squeue", "jobs") for record in _records(row)]


def parse_nodes(text: str) -> list[NodeRecord]:
    """Read `sinfo --json`: one object per node in 22.05, one per group of like nodes later."""
    found: dict[str, NodeRecord] = {}
    for row in _rows(text, "sinfo", "nodes", "sinfo"):
        if name := row.text("name"):
            words = row.words("state") + row.words("state_flags")
            names = [name]
        else:
            words, names = row.row("node").words("state"), row.row("nodes").words("nodes")
        states = frozenset(word.upper() for word in words)
        found |= {name: NodeRecord(name, states) for name in names}
    return list(found.values())
