"""Objects of Slurm's `--json` answers, read by field in the shapes of all its versions.

Slurm 22.05 (openapi v0.0.37, v0.0.38) writes plain numbers, states as text and TRES as `gres:gpu:8`; later versions
(data_parser v0.0.39 and newer) write numbers as {"set", "infinite", "number"}, states as lists and TRES as
`gres/gpu:8`. Fields that are not looked at are skipped unread.
"""

import re

import msgspec

from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.decode.limits import MOST_COMMAND_BYTES
from powerhall.runtime.errors import Rejected

__all__ = ["JsonRow", "json_rows"]

_SURROGATE = re.compile(r"(?<!\\)\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""Halves of a character that a name of bytes that are no UTF-8 may leave; whole ones in two halves are lost too."""
_NO_NUMBER = re.compile(r"(?<=[:\[,\s])-?(?:NaN|Infinity|nan|inf)(?=\s*[,\]}])")
"""What C writes for a number that is none; JSON has no such word."""
_MOST_VALUE = 1e12
"""Beyond it a number is damaged, and read as not set: times in seconds are below 1e10."""
_NO_VALUE = 4_294_967_294


class _Fields(msgspec.Struct):
    """The fields of a job or a node that are looked at, of some 130; the others are skipped unread."""

    job_id: object = None
    array_job_id: object = None
    array_task_id: object = None
    array_task_string: object = None
    het_job_id: object = None
    job_state: object = None
    state_reason: object = None
    partition: object = None
    qos: object = None
    user_name: object = None
    account: object = None
    submit_time: object = None
    eligible_time: object = None
    start_time: object = None
    time_limit: object = None
    priority: object = None
    licenses: object = None
    required_nodes: object = None
    features: object = None
    nodes: object = None
    comment: object = None
    admin_comment: object = None
    restart_cnt: object = None
    requeue: object = None
    node_count: object = None
    tasks: object = None
    sockets_per_node: object = None
    sockets: object = None
    tres_alloc_str: object = None
    gres_detail: object = None
    tres_per_job: object = None
    tres_per_node: object = None
    tres_per_task: object = None
    tres_per_socket: object = None
    excluded_nodes: object = None
    segment_size: object = None
    max_nodes: object = None
    tres_req_str: object = None
    deadline: object = None
    array_max_tasks: object = None
    dependency: object = None
    resv_name: object = None
    shared: object = None
    exclusive: object = None
    gres: object = None
    active_features: object = None
    partitions: object = None
    name: object = None
    state: object = None
    state_flags: object = None
    node: object = None


_Other = dict[str, object] | str | float | bool | None
_Rows = list[_Fields | list[object] | str | float | bool | None] | _Other


class _Answer(msgspec.Struct):
    jobs: _Rows = None
    nodes: _Rows = None
    sinfo: _Rows = None


class JsonRow:
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
        return int(value) if abs(value) <= _MOST_VALUE else 0

    def is_set(self, key: str) -> bool:
        """Return whether a number is set (an array's task id may be 0)."""
        value = self.data.get(key)
        if isinstance(value, dict):
            return bool(value.get("set"))
        return isinstance(value, int) and value not in (_NO_VALUE, _NO_VALUE + 1)

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
        return [str(item) for item in value if isinstance(item, str | int)] if isinstance(value, list) else []

    def upper(self, key: str) -> frozenset[str]:
        """Return words in capitals."""
        return frozenset(word.upper() for word in self.words(key))

    def row(self, key: str) -> "JsonRow":
        """Return a nested object."""
        value = self.data.get(key)
        return JsonRow(value if isinstance(value, dict) else {})


def _decoded(text: str, program: str) -> _Answer:
    body = _SURROGATE.sub(r"\\ufffd", text).encode("utf-8", "replace")
    return decode_json(body, _Answer, f"{program} --json", MOST_COMMAND_BYTES, any_number=True)


def json_rows(text: str, program: str, *keys: str) -> list[JsonRow]:
    """Return the objects of the first of these lists that the answer has."""
    try:
        try:
            answer = _decoded(text, program)
        except Rejected:
            answer = _decoded(_NO_NUMBER.sub("null", text), program)
    except Rejected as error:
        raise Rejected(f"{error}; Slurm 21.08 or later is needed") from None
    for key in keys:
        found = getattr(answer, key)
        if isinstance(found, list):
            return [JsonRow(msgspec.structs.asdict(item)) for item in found if isinstance(item, _Fields)]
    raise Rejected(f"{program} --json: must have a list {' or '.join(keys)}; Slurm 21.08 or later is needed")
