"""`powerhall-optimizer install` and `deploy-files`: the files of the planner host."""

from collections.abc import Sequence

from powerhall.install.command import add_parsers
from powerhall.install.host_files import Part, Service
from powerhall.runtime.command_line import Commands

__all__ = ["PART", "add_parser"]

_ENV = "optimizer.env"
PART = Part(
    "powerhall-optimizer",
    "powerhall-optimizer",
    {
        "optimizer": Service(
            ("powerhall-optimizer.service", "powerhall-optimizer.timer"), (_ENV, "site.toml"), "powerhall"
        ),
        "queue": Service(("powerhall-queue.service",), (_ENV, "scheduler.toml"), "powerhall-schedule"),
        "schedule": Service(("powerhall-schedule.service",), (_ENV, "scheduler.toml"), "powerhall-schedule"),
        "grant": Service(("powerhall-grant.service",), (_ENV,), "powerhall-grant"),
        "shed": Service(("powerhall-shed.service",), (_ENV,), "powerhall-grant"),
        "rollup": Service(
            ("powerhall-rollup.service", "powerhall-rollup@.service"), (_ENV, "site.toml"), "powerhall-rollup"
        ),
        "bills": Service(("powerhall-bills.service", "powerhall-bills.timer"), (_ENV, "site.toml"), "powerhall-rollup"),
        "cron": Service(("powerhall.cron",), (_ENV, "site.toml", "scheduler.toml"), chosen=False),
    },
)
_SECRETS = {
    "grant": "install -m 0600 site.key /etc/powerhall/site.key      # docs: power-cap leases, set up",
    "shed": "install -m 0600 shed.token /etc/powerhall/shed-token      # 32 characters or more",
}


def add_parser(commands: Commands) -> None:
    """Add both sub-commands."""
    add_parsers(commands, PART, _next)


def _next(services: Sequence[str]) -> list[str]:
    settings = dict.fromkeys(name for service in services for name in PART.services[service].settings)
    copies = [f"cp /etc/powerhall/{name}.example /etc/powerhall/{name}      # then edit it" for name in settings]
    if set(services) == {"cron"}:
        return copies
    secrets = ["install -m 0600 /dev/stdin /etc/powerhall/store-token      # paste the token, Ctrl-D"]
    secrets += [_SECRETS[name] for name in services if name in _SECRETS]
    rounds = [f"powerhall-{name}" for name in services if name in ("queue", "schedule", "grant")]
    units = {"optimizer": "powerhall-optimizer.timer", "shed": "powerhall-shed", "rollup": "powerhall-rollup"}
    units["bills"] = "powerhall-bills.timer"
    started = [unit for name, unit in units.items() if name in services]
    enable = [f"systemctl enable {' '.join(rounds)}"] if rounds else []
    now = [f"systemctl enable --now {' '.join(started)}"] if started else []
    return [*copies, *secrets, *enable, *now]
