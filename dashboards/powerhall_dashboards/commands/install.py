"""`powerhall-dashboards install` and `deploy-files`: Grafana's provisioning by files, the unit of the live pages."""

from collections.abc import Sequence

from powerhall.install.command import add_parsers
from powerhall.install.host_files import HostFile, Part, Service
from powerhall.install.shipped import shipped_file
from powerhall.runtime.command_line import Commands

__all__ = ["PART", "add_parser"]

_PROVISIONING = "/etc/grafana/provisioning"
_DATASOURCE = f"{_PROVISIONING}/datasources/powerhall.yaml"


def _grafana_files() -> Sequence[HostFile]:
    """Return dashboards and provisioning; the data source, which holds an address, as an example."""
    boards = sorted(shipped_file("dashboards").glob("*.json"))
    provisioning = shipped_file("grafana", "provisioning")
    files = {f"/var/lib/grafana/dashboards/{path.name}": path for path in boards}
    for name in ("alerting/powerhall.json", "dashboards/powerhall.yaml"):
        files[f"{_PROVISIONING}/{name}"] = provisioning / name
    files[f"{_DATASOURCE}.example"] = provisioning / "datasources" / "powerhall.yaml"
    return [HostFile(place, path.read_text(encoding="utf-8")) for place, path in files.items()]


PART = Part(
    "powerhall-dashboards",
    "powerhall-dashboards",
    {
        "grafana": Service(others=_grafana_files),
        "pages": Service(("powerhall-pages.service",), ("pages.env",), "powerhall-pages"),
    },
)
_NEXT = {
    "grafana": (
        f"cp {_DATASOURCE}.example {_DATASOURCE}      # then edit address, database and secret file",
        "systemctl restart grafana-server",
    ),
    "pages": (
        "cp /etc/powerhall/pages.env.example /etc/powerhall/pages.env      # then edit it",
        "install -m 0600 /dev/stdin /etc/powerhall/store-token      # paste the token, Ctrl-D",
        "openssl rand -hex 20 | install -m 0600 /dev/stdin /etc/powerhall/pages-token      # the password of the pages",
        "systemctl enable --now powerhall-pages",
    ),
}


def add_parser(commands: Commands) -> None:
    """Add both sub-commands."""
    add_parsers(commands, PART, _next)


def _next(services: Sequence[str]) -> list[str]:
    return [line for name in services for line in _NEXT[name]]
