"""`powerhall-agent install` and `deploy-files`: the files of a GPU host and of the host of the meters."""

from collections.abc import Sequence

from powerhall.install.command import add_parsers
from powerhall.install.host_files import Part, Service
from powerhall.runtime.command_line import Commands

__all__ = ["PART", "add_parser"]

PART = Part(
    "powerhall-agent",
    "powerhall-agent",
    {
        "agent": Service(("powerhall-agent.service",), ("agent.toml",), "powerhall-agent"),
        "capper": Service(("powerhall-capper.service",), ("capper.toml",)),
        "lease": Service(("powerhall-lease.service",), ("lease.env",), "powerhall-lease"),
        "gateway": Service(("powerhall-gateway.service",), ("facility.toml",), "powerhall-gateway"),
    },
)
_SETTINGS = {"agent": "agent.toml", "capper": "capper.toml", "lease": "lease.env", "gateway": "facility.toml"}


def add_parser(commands: Commands) -> None:
    """Add both sub-commands."""
    add_parsers(commands, PART, _next)


def _next(services: Sequence[str]) -> list[str]:
    copies = [
        f"cp /etc/powerhall/{_SETTINGS[name]}.example /etc/powerhall/{_SETTINGS[name]}      # then edit it"
        for name in services
    ]
    secrets = []
    if set(services) != {"capper"}:
        secrets.append("install -m 0600 /dev/stdin /etc/powerhall/store-token      # paste the token, Ctrl-D")
    if "capper" in services:
        secrets.append("install -m 0400 NODE.key /etc/powerhall/node.key      # by `powerhall-optimizer node-key`")
    return [*copies, *secrets, f"systemctl enable --now {' '.join(f'powerhall-{name}' for name in services)}"]
