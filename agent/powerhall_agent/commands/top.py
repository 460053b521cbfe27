"""`powerhall-agent top`: a live view of the GPUs in the terminal, by rich where it is installed, else as plain text."""

import argparse
import importlib.util
import sys
import time
from types import ModuleType

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.decode.numbers_in import count_of
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.commands.once import gpus_of, table
from powerhall_agent.commands.options import add_config_option, add_sampling_options, once_settings
from powerhall_agent.sampling.sampler import run_sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["add_parser", "run_top"]

_TEXT = """\
A live view of this node's GPUs, drawn with rich where it is installed (pip install 'powerhall[top]'), else as text.

examples:
  powerhall-agent top
  powerhall-agent top --simulate --interval 0.5
  powerhall-agent top --simulate --count 1 --plain   one picture, for a log
"""
_BAR = 20


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "top", _top, help="live view in the terminal", description=_TEXT)
    add_config_option(parser)
    add_sampling_options(parser)
    parser.add_argument("--plain", action="store_true", help="text only, no colours or cursor movement")
    parser.add_argument(
        "--count", type=count_of(0, 1_000_000_000), default=0, metavar="N", help="end after N pictures (default: never)"
    )


def _top(arguments: argparse.Namespace) -> int:
    return run_top(once_settings(arguments), plain=arguments.plain, count=arguments.count)


class _View:
    """A sink and a stop in one: draws a picture for every full set."""

    def __init__(self, node: str, *, plain: bool, count: int) -> None:
        self.pictures = 0
        self._node, self._count = node, count
        self._rich = None if plain or importlib.util.find_spec("rich") is None else importlib.import_module("rich")
        self._lines: dict[bytes, bytes] = {}

    def write(self, lines: bytes) -> None:
        for line in lines.splitlines(keepends=True):
            self._lines[line.partition(b" ")[0]] = line
        if b"\ngpu," in b"\n" + lines:
            self.pictures += 1
            self._draw(b"".join(self._lines.values()))

    def wait(self, timeout: float | None = None) -> bool:
        if self._count and self.pictures >= self._count:
            return True
        time.sleep(timeout or 0.0)
        return False

    def _draw(self, lines: bytes) -> None:
        title = f"{self._node}  {time.strftime('%H:%M:%S')}  {_total_w(lines):.0f} W"
        if self._rich is None:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
            sys.stdout.write(f"{clear}{title}\n{table(lines)}\n")
            sys.stdout.flush()
        else:
            _draw_rich(self._rich, title, lines)


def run_top(settings: SamplerSettings, *, plain: bool, count: int) -> int:
    """Draw until Ctrl-C, or `count` pictures."""
    view = _View(settings.node, plain=plain or not sys.stdout.isatty(), count=count)
    try:
        run_sampler(settings, view, view)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    return 0


def _total_w(lines: bytes) -> float:
    return sum(float(p.fields.get("power_w", 0.0)) for p in parse_lines(lines) if p.measurement == "gpu")


def _draw_rich(rich: ModuleType, title: str, lines: bytes) -> None:
    console_module, table_module = importlib.import_module("rich.console"), importlib.import_module("rich.table")
    view = table_module.Table(title=title, title_justify="left", expand=False)
    for heading in ("gpu", "name", "state", "power", "W", "limit W", "temp C", "util %", "mem GiB", "SM MHz"):
        view.add_column(heading, justify="left" if heading in ("name", "state", "power") else "right")
    for gpu, values in gpus_of(lines):
        power, limit = float(values.get("power_w", 0.0)), float(values.get("power_limit_w", 0.0)) or 1.0
        filled = min(_BAR, round(_BAR * power / limit))
        colour = "green" if power < 0.7 * limit else "yellow" if power < 0.95 * limit else "red"
        state = str(values.get("state", "-"))
        view.add_row(
            gpu,
            str(values.get("name", "-")),
            state if state == "ok" else f"[red]{state}[/red]",
            f"[{colour}]{'█' * filled}[/{colour}]{'░' * (_BAR - filled)}",
            f"{power:.0f}",
            f"{limit:.0f}",
            f"{float(values.get('temp_c', 0.0)):.0f}",
            f"{float(values.get('util_percent', 0.0)):.0f}",
            f"{float(values.get('mem_used_bytes', 0.0)) / 2**30:.1f}",
            f"{float(values.get('sm_clock_mhz', 0.0)):.0f}",
        )
    console = console_module.Console()
    console.clear()
    rich.print(view)
