"""Settings of the node agent: one TOML file into frozen structs; the command line overrides single values."""

import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from powerhall.errors import ConfigError, Rejected
from powerhall.settings import convert, read_toml

__all__ = [
    "AgentSettings",
    "DaemonSettings",
    "IdentitySettings",
    "OutputSettings",
    "PrometheusSettings",
    "SamplerSettings",
    "ShipSettings",
    "SimulateSettings",
    "SpoolSettings",
    "load_settings",
]

DEFAULT_SPOOL = "/var/lib/powerhall-agent/spool"


def _range(field: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{field}: {value:g}: must be from {low:g} to {high:g} {unit}".rstrip())


class IdentitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tags of every point of this node; `node` is the host name where it is empty."""

    site: str = "site"
    hall: str = ""
    rack: str = ""
    node: str = ""

    def tags(self) -> dict[str, str]:
        """Return the node's tags in the schema's order."""
        node = self.node or socket.gethostname().partition(".")[0]
        return {"site": self.site, "hall": self.hall, "rack": self.rack, "node": node}


class SimulateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Simulated GPUs in the place of the driver; `state` is the file they live in, "" for a private one."""

    enabled: bool = False
    gpus: int = 8
    model: str = "H100"
    seed: int = 1
    state: str = ""


class SamplerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often each set of sensors is read, and the flight recorder."""

    fast_hz: float = 10.0
    full_s: float = 1.0
    slow_s: float = 10.0
    ring_s: float = 120.0
    record_before_s: float = 60.0
    record_after_s: float = 60.0
    processes: bool = True
    user_hash_salt_file: str = ""
    redfish_url: str = ""
    redfish_user: str = ""
    redfish_password_file: str = ""
    redfish_ca_file: str = ""

    def __post_init__(self) -> None:
        """Refuse rates that a driver cannot serve."""
        _range("sampler.fast_hz", self.fast_hz, 0.1, 100.0, "Hz")
        _range("sampler.full_s", self.full_s, 0.1, 3600.0, "s")
        _range("sampler.slow_s", self.slow_s, 1.0, 3600.0, "s")
        _range("sampler.ring_s", self.ring_s, 1.0, 600.0, "s")


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where undelivered points wait, and how many bytes of disk each output may take."""

    path: str = DEFAULT_SPOOL
    max_bytes: int = 512 * 1024 * 1024
    segment_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        """Refuse a bound that cannot hold two segments."""
        _range("spool.segment_bytes", self.segment_bytes, 4096, 16 * 1024 * 1024, "bytes")
        _range("spool.max_bytes", self.max_bytes, 2 * self.segment_bytes, 1 << 50, "bytes")


class ShipSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pace of delivery; see docs/agent.md for what follows from it."""

    interval_s: float = 1.0
    batch_bytes: int = 1024 * 1024
    backlog_factor: float = 4.0
    backoff_max_s: float = 60.0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a pace that would flood the store or never reach it."""
        _range("ship.interval_s", self.interval_s, 0.01, 60.0, "s")
        _range("ship.batch_bytes", self.batch_bytes, 4096, 16 * 1024 * 1024, "bytes")
        _range("ship.backlog_factor", self.backlog_factor, 1.0, 100.0, "")
        _range("ship.backoff_max_s", self.backoff_max_s, 0.1, 3600.0, "s")
        _range("ship.timeout_s", self.timeout_s, 0.1, 600.0, "s")


class OutputSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One store; the name is its folder in the spool and its label in metrics."""

    url: str
    name: str = "store"

    def __post_init__(self) -> None:
        """Refuse a name that is no folder name."""
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"output.name: {self.name!r}: must be letters, digits, '-' and '_'")


class PrometheusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optional /metrics endpoint; off while `listen` is empty."""

    listen: str = ""
    cert_file: str = ""
    key_file: str = ""
    user: str = ""
    password_file: str = ""

    def __post_init__(self) -> None:
        """Refuse half of a pair."""
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("prometheus: cert_file and key_file go together")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("prometheus: user and password_file go together")
        if self.listen and not self.listen.rpartition(":")[2].isdigit():
            raise ValueError(f"prometheus.listen: {self.listen!r}: must be HOST:PORT, such as 127.0.0.1:9835")


class DaemonSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Deadlines of the supervisor."""

    stuck_after_s: float = 4.0
    stop_within_s: float = 8.0
    metrics_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse deadlines that a busy host would always miss."""
        _range("daemon.stuck_after_s", self.stuck_after_s, 2.0, 600.0, "s")
        _range("daemon.stop_within_s", self.stop_within_s, 1.0, 600.0, "s")
        _range("daemon.metrics_s", self.metrics_s, 1.0, 3600.0, "s")


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in agent.toml; every key has a default, so an empty file is a valid one."""

    identity: IdentitySettings = IdentitySettings()
    sampler: SamplerSettings = SamplerSettings()
    simulate: SimulateSettings = SimulateSettings()
    spool: SpoolSettings = SpoolSettings()
    ship: ShipSettings = ShipSettings()
    output: tuple[OutputSettings, ...] = ()
    prometheus: PrometheusSettings = PrometheusSettings()
    daemon: DaemonSettings = DaemonSettings()

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
    simulate: bool = False,
    overrides: dict[str, dict[str, object]] | None = None,
) -> AgentSettings:
    """Read agent.toml, if one is named, and lay the command line's values over it.

    `stores` replaces the file's outputs, `overrides` single keys of a table; what is wrong raises Rejected.
    """
    base = read_toml(config, AgentSettings) if config is not None else AgentSettings()
    data = msgspec.to_builtins(base)
    for table, values in (overrides or {}).items():
        data[table].update({key: value for key, value in values.items() if value is not None})
    if spool is not None:
        data["spool"]["path"] = spool
    if simulate:
        data["simulate"]["enabled"] = True
    if stores:
        data["output"] = [{"url": url, "name": _name(index)} for index, url in enumerate(stores)]
    try:
        return convert(data, AgentSettings, "command line")
    except Rejected as error:
        raise ConfigError(str(error)) from None


def _name(index: int) -> str:
    return "store" if index == 0 else f"store{index + 1}"
