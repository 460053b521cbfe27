"""Command line of the node agent."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from powerhall import __version__
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED
from powerhall_agent.commands import cap as capper
from powerhall_agent.commands import gateway as facility
from powerhall_agent.daemon.agent_settings import AgentSettings, load_settings
from powerhall_agent.sampling.sampler_settings import SamplerSettings

__all__ = ["main"]

_EPILOG = """\
examples:
  powerhall-agent once --simulate                     eight simulated H100s, as a table
  powerhall-agent once --format line                  this node's GPUs in InfluxDB line protocol
  powerhall-agent run --simulate --store sqlite:///telemetry.db --spool ./spool
  powerhall-agent run --config /etc/powerhall/agent.toml
  powerhall-agent doctor --config /etc/powerhall/agent.toml
  powerhall-agent top                                 live view
  powerhall-agent spool list --spool /var/lib/powerhall-agent/spool
  powerhall-agent cap --config /etc/powerhall/capper.toml

exit codes: 0 ok, 1 refused input or failed check, 2 usage, 3 internal error
"""
_RUN = """\
Runs in the foreground: samples every GPU, spools every record to disk and ships it to every store. All processes are
children of this one. SIGTERM or Ctrl-C delivers what is live and ends; SIGHUP reads the settings again.

examples:
  powerhall-agent run --simulate --store sqlite:///telemetry.db --spool ./spool
  powerhall-agent run --store 'influxdb://127.0.0.1:8086/powerhall?token_file=/etc/powerhall/token' --spool ./spool
  powerhall-agent run --store influxdb://a:8086/gpu --store influxdb://b:8086/gpu --spool ./spool   two stores at once
"""
_ONCE = """\
Takes one full sample and prints it; needs no settings, store or spool.

examples:
  powerhall-agent once                      a table of this node's GPUs
  powerhall-agent once --simulate --gpus 2  without GPUs
  powerhall-agent once --format line | curl --data-binary @- 'http://127.0.0.1:8086/write?db=test&precision=ms'
"""
_DOCTOR = """\
Says in plain words what works, what is missing and what to do: driver, permissions, clock, spool, store, token.
Exit code 1 when something needs a person.

examples:
  powerhall-agent doctor
  powerhall-agent doctor --config /etc/powerhall/agent.toml --json
"""
_TOP = """\
A live view of this node's GPUs, drawn with rich where it is installed (pip install 'powerhall[top]'), else as text.

examples:
  powerhall-agent top
  powerhall-agent top --simulate --interval 0.5
  powerhall-agent top --simulate --count 1 --plain   one picture, for a log
"""
_SPOOL = """\
Looks into a spool, or delivers it by hand while the daemon is stopped (a decommissioned node, a copied disk).

examples:
  powerhall-agent spool list --spool /var/lib/powerhall-agent/spool
  powerhall-agent spool show --spool ./spool --output store | head
  powerhall-agent spool drain --spool ./spool --output store --store influxdb://127.0.0.1:8086/powerhall
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except PowerhallError as error:
        sys.stderr.write(f"powerhall-agent: {error}\n")
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return EXIT_OK
    except Exception:  # noqa: BLE001 - the last line of defence of a command; written out in full
        traceback.print_exc()
        return EXIT_INTERNAL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="powerhall-agent",
        description="Node agent of Powerhall: measures GPUs through NVML, loses nothing, ships to InfluxDB.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"powerhall-agent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = _command(commands, "run", "sample, spool and ship until told to stop", _RUN, _run)
    _add_sampling(run)
    _add_shipping(run)
    run.add_argument("--for", dest="for_s", type=float, metavar="SECONDS", help="end after this many seconds")
    run.add_argument("--metrics", metavar="HOST:PORT", help="serve Prometheus' /metrics there")
    once = _command(commands, "once", "print one full sample", _ONCE, _once)
    _add_sampling(once)
    once.add_argument("--format", choices=("table", "line", "json"), default="table", help="default: table")
    doctor = _command(commands, "doctor", "say what works and what to do about the rest", _DOCTOR, _doctor)
    _add_sampling(doctor)
    _add_shipping(doctor)
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    top = _command(commands, "top", "live view in the terminal", _TOP, _top)
    _add_sampling(top)
    top.add_argument("--plain", action="store_true", help="text only, no colours or cursor movement")
    top.add_argument("--count", type=int, default=0, metavar="N", help="end after N pictures (default: never)")
    spool = _command(commands, "spool", "list, show or drain a spool", _SPOOL, _spool)
    spool.add_argument("action", choices=("list", "show", "drain"))
    _add_shipping(spool)
    spool.add_argument("--output", metavar="NAME", default="store", help="folder in the spool (default: store)")
    spool.add_argument("--json", action="store_true", help="print the list as JSON")
    capper.add_parsers(commands)
    facility.add_parsers(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_: str,
    text: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    found = commands.add_parser(
        name, help=help_, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.set_defaults(command=function)
    found.add_argument("--config", metavar="FILE", help="settings, such as /etc/powerhall/agent.toml")
    return found


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--simulate", action="store_true", help="simulated GPUs in the place of the NVIDIA driver")
    parser.add_argument("--gpus", type=int, metavar="N", help="simulated GPUs (default: 8)")
    parser.add_argument("--model", metavar="NAME", help="simulated model: A100, H100, H200, B200, L40S (default: H100)")
    parser.add_argument("--state-file", metavar="FILE", help="simulated GPUs shared with other processes")
    parser.add_argument("--script", metavar="FILE", help="fault script for the simulated GPUs")
    parser.add_argument("--recording", metavar="FILE", help="replay a recording on the simulated GPUs")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the simulated GPUs (default: 1)")
    parser.add_argument("--first-gpu", type=int, metavar="N", help="first GPU of this node in the library")
    parser.add_argument("--gpu-count", type=int, metavar="N", help="GPUs of this node from the first one on")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="pace of the full set (default: 1)")
    for tag in ("node", "site", "hall", "rack"):
        parser.add_argument(f"--{tag}", metavar="NAME", help=f"{tag} tag of every point")


def _add_shipping(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        action="append",
        default=[],
        metavar="URL",
        help="sqlite:///PATH or influxdb://HOST:PORT/BUCKET?token_file=FILE; may be given more than once",
    )
    parser.add_argument("--spool", metavar="DIR", help="where undelivered points wait")


def _settings(arguments: argparse.Namespace) -> AgentSettings:
    given = vars(arguments)
    sampler = {key: given.get(key) for key in ("node", "site", "hall", "rack", "first_gpu", "gpu_count")}
    overrides: dict[str, dict[str, object]] = {"sampler": {**sampler, "interval_s": given.get("interval")}}
    simulate = {key: given.get(key) for key in ("gpus", "model", "state_file", "script", "recording", "seed")}
    if given.get("simulate"):
        overrides["sampler.simulate"] = {"seed": 1, **{k: v for k, v in simulate.items() if v is not None}}
    elif any(value is not None for value in simulate.values()):
        raise PowerhallError("--gpus, --model, --state-file, --script, --recording and --seed need --simulate")
    if given.get("metrics"):
        overrides["prometheus"] = {"listen": given["metrics"]}
    return load_settings(arguments.config, stores=given.get("store", ()), spool=given.get("spool"), overrides=overrides)


def _glance(arguments: argparse.Namespace) -> SamplerSettings:
    """Settings for a look that leaves nothing behind: the daemon alone keeps energy totals."""
    return msgspec.structs.replace(_settings(arguments).sampler, state_dir="")


def _run(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    if not settings.output:
        raise PowerhallError("run: no store: give --store URL, or [[output]] with url in the settings file")
    from powerhall.runtime.log import Log
    from powerhall_agent.daemon.daemon import run_daemon

    return run_daemon(lambda: _settings(arguments), Log(), arguments.for_s)


def _once(arguments: argparse.Namespace) -> int:
    from powerhall_agent.commands.once import complaint, sample, table, to_json

    lines = sample(_glance(arguments))
    if problem := complaint(lines):
        raise PowerhallError(f"once: {problem}; `powerhall-agent doctor` says what to do")
    if arguments.format == "line":
        sys.stdout.write(lines.decode())
    else:
        sys.stdout.write(table(lines) if arguments.format == "table" else to_json(lines))
    return EXIT_OK


def _doctor(arguments: argparse.Namespace) -> int:
    from powerhall_agent.commands.doctor import examine, report

    findings = examine(msgspec.structs.replace(_settings(arguments), sampler=_glance(arguments)))
    sys.stdout.write(report(findings, as_json=arguments.json))
    return EXIT_REFUSED if any(finding.level == "bad" for finding in findings) else EXIT_OK


def _top(arguments: argparse.Namespace) -> int:
    from powerhall_agent.commands.top import run_top

    return run_top(_glance(arguments), plain=arguments.plain, count=arguments.count)


def _spool(arguments: argparse.Namespace) -> int:
    from powerhall_agent.commands.spool import drain, listing, show

    settings = _settings(arguments)
    folder = Path(settings.spool.path)
    if arguments.action == "list":
        sys.stdout.write(listing(folder, as_json=arguments.json))
    elif arguments.action == "show":
        show(folder / arguments.output, sys.stdout.buffer)
    else:
        sys.stdout.write(drain(folder, arguments.output, settings))
    return EXIT_OK
