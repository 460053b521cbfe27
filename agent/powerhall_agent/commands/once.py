"""`powerhall-agent once`: one full sample of this node, as a table, line protocol or JSON."""

import argparse
import json
import sys
import time
from typing import Final, NamedTuple

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.extras import EXIT_OK
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.commands.options import add_config_option, add_sampling_options, once_settings
from powerhall_agent.sampling.sampler import run_sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["HANGS", "NoGpus", "add_parser", "gpus_of", "sample", "table", "to_json", "why_no_gpus"]

_TEXT = """\
Takes one full sample and prints it; needs no settings, store or spool.

examples:
  powerhall-agent once                      a table of this node's GPUs
  powerhall-agent once --simulate --gpus 2  without GPUs
  powerhall-agent once --format line | curl --data-binary @- 'http://127.0.0.1:8086/write?db=test&precision=ms'
"""
_PATIENCE_S = 5.0
HANGS: Final = -1
"""Stands for the return code of a driver call that does not return."""
_COLUMNS = (
    ("gpu", "gpu", ""),
    ("name", "name", ""),
    ("state", "state", ""),
    ("power_w", "power W", ".1f"),
    ("power_limit_w", "limit W", ".0f"),
    ("temp_c", "temp C", ".0f"),
    ("hbm_temp_c", "HBM C", ".0f"),
    ("util_percent", "util %", ".0f"),
    ("mem_used_bytes", "mem GiB", ".1f"),
    ("sm_clock_mhz", "SM MHz", ".0f"),
    ("energy_j", "energy kJ", ".1f"),
)
_SCALE = {"mem_used_bytes": 1 / 2**30, "energy_j": 1e-3}


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "once", _once, help="print one full sample", description=_TEXT)
    add_config_option(parser)
    add_sampling_options(parser)
    parser.add_argument("--format", choices=("table", "line", "json"), default="table", help="default: table")


def _once(arguments: argparse.Namespace) -> int:
    lines = sample(once_settings(arguments))
    if problem := why_no_gpus(lines):
        raise PowerhallError(f"once: {problem.detail}; run `powerhall-agent doctor` for the remedy")
    if arguments.format == "line":
        sys.stdout.write(lines.decode())
    else:
        sys.stdout.write(table(lines) if arguments.format == "table" else to_json(lines))
    return EXIT_OK


class _Collect:
    """A sink and a stop in one: ends the sampler once the full set has come in."""

    def __init__(self) -> None:
        self.lines = b""
        self._end_s = time.monotonic() + _PATIENCE_S

    def write(self, lines: bytes) -> None:
        self.lines += lines

    def wait(self, timeout: float | None = None) -> bool:
        if b"\ngpu," in self.lines or b"kind=driver_missing" in self.lines or time.monotonic() > self._end_s:
            return True
        time.sleep(timeout or 0.0)
        return False


def sample(settings: SamplerSettings) -> bytes:
    """Sample until the first full set is complete and return its lines."""
    collect = _Collect()
    run_sampler(settings, collect, collect)
    return collect.lines


class NoGpus(NamedTuple):
    """Why a sample holds no GPU: the driver's message, and its return code where there was one."""

    detail: str
    nvml_code: int | None


def why_no_gpus(lines: bytes) -> NoGpus | None:
    """Return why the sample holds no GPU; None when it holds some."""
    if gpus_of(lines):
        return None
    events = [p.fields for p in parse_lines(lines) if p.measurement == "event" and "detail" in p.fields]
    if not events and any(p.fields.get("driver_stuck") for p in parse_lines(lines) if p.measurement == "agent"):
        return NoGpus("the driver does not answer: a call does not return", HANGS)
    if not events:
        return NoGpus("the driver lists no GPU", None)
    return NoGpus(str(events[-1]["detail"]), int(events[-1].get("code", 0)))


def table(lines: bytes) -> str:
    """Render the GPUs as a table with one row each; a value that a GPU does not have is a dash."""
    rows = [[title for _, title, _ in _COLUMNS]]
    for gpu, values in gpus_of(lines):
        rows.append([_cell({**values, "gpu": gpu}, key, form) for key, _, form in _COLUMNS])
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    texts = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(texts) + "\n"


def to_json(lines: bytes) -> str:
    """Render all points as one JSON list of {measurement, tags, fields, time_ms}."""
    points = [
        {"measurement": p.measurement, "tags": dict(p.tags), "fields": dict(p.fields), "time_ms": p.time_ms}
        for p in parse_lines(lines)
    ]
    return json.dumps(points, indent=1) + "\n"


def gpus_of(lines: bytes) -> list[tuple[str, dict[str, float | str]]]:
    """Group the values of the lines by GPU, in order of GPU number; `state` is its health."""
    gpus: dict[str, dict[str, float | str]] = {}
    for point in parse_lines(lines):
        if "gpu" not in point.tags or point.measurement not in ("gpu", "gpu_identity", "gpu_state"):
            continue
        values = gpus.setdefault(point.tags["gpu"], {})
        if point.measurement == "gpu_state":
            values["state"] = str(point.fields.get("reason", "-"))
        else:
            values.update(point.fields)
    return sorted(gpus.items(), key=lambda item: (len(item[0]), item[0]))


def _cell(values: dict[str, float | str], key: str, form: str) -> str:
    value = values.get(key)
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value * _SCALE.get(key, 1.0), form)
