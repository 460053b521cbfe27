"""Options that several sub-commands share, and the settings that they override."""

import argparse

import msgspec

from powerhall.runtime.decode.numbers_in import count_of
from powerhall.runtime.errors import PowerhallError
from powerhall.units import parse_span
from powerhall_agent.settings.agent_settings import AgentSettings, load_settings
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["add_config_option", "add_delivery_options", "add_sampling_options", "agent_settings", "once_settings"]


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument("--config", metavar="FILE", help="settings, such as /etc/powerhall/agent.toml")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of sampling: GPUs, pace and tags."""
    parser.add_argument("--simulate", action="store_true", help="simulated GPUs in the place of the NVIDIA driver")
    parser.add_argument("--gpus", type=count_of(1, 4096), metavar="N", help="simulated GPUs (default: 8)")
    parser.add_argument("--model", metavar="NAME", help="simulated model: A100, H100, H200, B200, L40S (default: H100)")
    parser.add_argument(
        "--state-file",
        metavar="FILE",
        help="file of simulated GPUs, shared with the capper; made where it is not there",
    )
    parser.add_argument("--script", metavar="FILE", help="fault script for the simulated GPUs")
    parser.add_argument("--recording", metavar="FILE", help="replay a recording on the simulated GPUs")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the simulated GPUs (default: 1)")
    parser.add_argument(
        "--first-gpu", type=count_of(0, 1_000_000), metavar="N", help="first GPU of this node in the library"
    )
    parser.add_argument(
        "--gpu-count", type=count_of(1, 4096), metavar="N", help="GPUs of this node from the first one on"
    )
    parser.add_argument("--interval", type=parse_span, metavar="SPAN", help="pace of the full set (default: 1s)")
    for tag in ("node", "site", "hall", "rack"):
        parser.add_argument(f"--{tag}", metavar="NAME", help=f"{tag} tag of every point")


def add_delivery_options(parser: argparse.ArgumentParser) -> None:
    """Add the stores and the spool."""
    parser.add_argument(
        "--store",
        action="append",
        default=[],
        metavar="URL",
        help="such as sqlite:///PATH or influxdb://HOST:PORT/BUCKET?token_file=FILE; may be given more than once",
    )
    parser.add_argument("--spool", metavar="DIR", help="where undelivered points wait")


def agent_settings(arguments: argparse.Namespace) -> AgentSettings:
    """Return the settings file's values, or the defaults, under the options that were given."""
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


def once_settings(arguments: argparse.Namespace) -> SamplerSettings:
    """Return the sampler's settings for a command that keeps no state: only the daemon stores energy totals."""
    return msgspec.structs.replace(agent_settings(arguments).sampler, state_dir="")
