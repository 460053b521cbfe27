"""Settings of the node agent: one TOML file into frozen structs; the command line overrides single values."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import ConfigError
from powerhall.runtime.settings import convert, read_toml
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = [
    "AgentSettings",
    "DaemonSettings",
    "OutputSettings",
    "PrometheusSettings",
    "ShipSettings",
    "SpoolSettings",
    "load_settings",
]

DEFAULT_SPOOL = "/var/lib/powerhall-agent/spool"


def _range(field: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{field}: {value:g}: must be from {low:g} to {high:g} {unit}".rstrip())


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where undelivered points wait, and how many bytes of disk each output may take."""

    path: str = DEFAULT_SPOOL
    """Folder of the spool; one agent per folder."""
    max_bytes: int = 512 * 1024 * 1024
    """Disk that one output may take, from two segments to 2^50 bytes; the oldest segment is deleted first, and
    counted."""
    segment_bytes: int = 256 * 1024
    """Size of a segment, from 4096 to 16777216 bytes: the unit of deletion, packing and resending."""

    def __post_init__(self) -> None:
        """Refuse a bound that cannot hold two segments."""
        _range("spool.segment_bytes", self.segment_bytes, 4096, 16 * 1024 * 1024, "bytes")
        _range("spool.max_bytes", self.max_bytes, 2 * self.segment_bytes, 1 << 50, "bytes")


class ShipSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pace of delivery; see docs/guide/agent.md for the consequences."""

    interval_s: float = 1.0
    """Least time between two deliveries of live data, from 0.01 to 60 s."""
    batch_bytes: int = 1024 * 1024
    """Most bytes of lines in one request before gzip, from 4096 to 16777216."""
    backlog_factor: float = 4.0
    """Most backlog points sent per live point, from 1 to 100."""
    backoff_max_s: float = 60.0
    """Longest pause between two tries before jitter, from 0.01 to 3600 s."""
    timeout_s: float = 10.0
    """Longest wait for one request, from 0.1 to 600 s; a shorter one in the store's URL wins."""

    def __post_init__(self) -> None:
        """Refuse a pace that would flood the store or never reach it."""
        _range("ship.interval_s", self.interval_s, 0.01, 60.0, "s")
        _range("ship.batch_bytes", self.batch_bytes, 4096, 16 * 1024 * 1024, "bytes")
        _range("ship.backlog_factor", self.backlog_factor, 1.0, 100.0, "")
        _range("ship.backoff_max_s", self.backoff_max_s, 0.01, 3600.0, "s")
        _range("ship.timeout_s", self.timeout_s, 0.1, 600.0, "s")


class OutputSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One store; the name is its folder in the spool and its label in metrics."""

    url: str
    """The URL of the store, such as `sqlite:///PATH` or `influxdb://HOST:PORT/BUCKET?...`."""
    name: str = "store"
    """Folder in the spool and label in logs: letters, digits, `-` and `_`."""

    def __post_init__(self) -> None:
        """Refuse a name that is no folder name."""
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"output.name: {self.name!r}: must be letters, digits, '-' and '_'")


class PrometheusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optional /metrics endpoint; off while `listen` is empty."""

    listen: str = ""
    """`HOST:PORT` of `/metrics`; empty turns it off."""
    cert_file: str = ""
    """Certificate for TLS; together with `key_file`."""
    key_file: str = ""
    """Key of the certificate."""
    user: str = ""
    """User for basic authentication; together with `password_file`."""
    password_file: str = ""
    """File with the password."""
    names: Literal["powerhall", "dcgm", "both"] = "powerhall"
    """Names and labels of the metrics: our own, those of dcgm-exporter for what we measure too, or both."""

    def __post_init__(self) -> None:
        """Refuse half of a pair."""
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("prometheus: cert_file and key_file go together")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("prometheus: user and password_file go together")
        if self.listen and digits(self.listen.rpartition(":")[2]) is None:
            raise ValueError(f"prometheus.listen: {self.listen!r}: must be HOST:PORT, such as 127.0.0.1:9835")


class DaemonSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Deadlines of the supervisor."""

    stuck_after_s: float = 3.0
    """Silence of the sampler that counts as a hung driver, from 2 to 600 s."""
    stop_within_s: float = 8.0
    """Deadline of an orderly stop, from 1 to 600 s."""
    metrics_s: float = 10.0
    """Interval of the agent's own measurement `agent`, from 1 to 3600 s."""

    def __post_init__(self) -> None:
        """Refuse deadlines that a busy host would always miss."""
        _range("daemon.stuck_after_s", self.stuck_after_s, 2.0, 600.0, "s")
        _range("daemon.stop_within_s", self.stop_within_s, 1.0, 600.0, "s")
        _range("daemon.metrics_s", self.metrics_s, 1.0, 3600.0, "s")


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in agent.toml; `[sampler]` says where the node is and what to read."""

    sampler: SamplerSettings
    """Where the node is and what to read."""
    spool: SpoolSettings = SpoolSettings()
    """Where undelivered points wait."""
    ship: ShipSettings = ShipSettings()
    """Pace of delivery."""
    output: tuple[OutputSettings, ...] = ()
    """The stores; every point goes to each of them."""
    prometheus: PrometheusSettings = PrometheusSettings()
    """The `/metrics` endpoint."""
    daemon: DaemonSettings = DaemonSettings()
    """Deadlines of the supervisor."""

    def __post_init__(self) -> None:
        """Refuse two outputs that would share a spool folder."""
        names = [entry.name for entry in self.output]
        if len(set(names)) != len(names):
            raise ValueError(f"output.name: {', '.join(names)}: every output needs a name of its own")


def load_settings(
    config: str | Path | None,
    *,
    stores: Sequence[str] = (),
    spool: str | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> AgentSettings:
    """Read agent.toml, if one is named, and override it by the command line.

    `stores` replaces the file's outputs, `overrides` single keys of a table (None leaves a key alone). Without a name
    of its own, the node is named after the host. Invalid settings raise Rejected.
    """
    data = read_toml(config, dict[str, Any]) if config is not None else {}
    for path, values in (overrides or {}).items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            _table(data, path).update(given)
    if spool is not None:
        _table(data, "spool")["path"] = spool
    if stores:
        data["output"] = [{"url": url, "name": _name(index)} for index, url in enumerate(stores)]
    sampler = _table(data, "sampler")
    sampler.setdefault("node", socket.gethostname().partition(".")[0])
    sampler.setdefault("state_dir", str(Path(str(_table(data, "spool").get("path", DEFAULT_SPOOL))) / ".state"))
    return convert(data, AgentSettings, str(config) if config is not None else "command line")


def _table(data: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the table of this dotted path, made when absent."""
    for name in path.split("."):
        data = data.setdefault(name, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: must be a table, such as [{path}]")
    return data


def _name(index: int) -> str:
    return "store" if index == 0 else f"store{index + 1}"
