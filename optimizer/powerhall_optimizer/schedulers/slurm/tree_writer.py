"""Write the site's power tree into Slurm: resources.yaml, `scontrol reconfigure`, and closing of nodes in deep cuts.

Slurm's reservations of licences do nothing in mode 3, so a budget cut is lower counts. Where a budget has no room for
one node's charge, its nodes are reserved instead (see `power_tree`).
"""

import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from powerhall.hostlist import compress
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Retryable
from powerhall_optimizer.schedulers.base import Command, WriteReport
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason
from powerhall_optimizer.schedulers.slurm import resources_file
from powerhall_optimizer.schedulers.slurm.cluster import parse_reserved_nodes
from powerhall_optimizer.schedulers.slurm.commands import SlurmTool, time_text
from powerhall_optimizer.schedulers.slurm.power_tree import PowerTree, power_tree
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.tokens import Tokens, parse_config, parse_tokens

__all__ = ["CLOSED", "TreeWriter"]

CLOSED = "powerhall_closed"
"""The reservation of nodes whose budget has no room for a job."""
_SETTLE_S = 10.0
_SUBJECT = "power tree"


class TreeWriter:
    """Writes the tree of a plan where the cluster counts power by one, or could."""

    def __init__(self, tool: SlurmTool, settings: SlurmSettings) -> None:
        self._tool, self._settings = tool, settings

    def tokens(self) -> Tokens:
        """Return how the cluster counts power now."""
        licence = self._settings.licence
        return parse_tokens(self._tool.ask("scontrol", "-o", "show", "lic"), licence) if licence else Tokens()

    def write(
        self, plan: Plan, known: Iterable[str], charges: Iterable[int], now_s: float, report: WriteReport
    ) -> Tokens:
        """Bring resources.yaml to the plan's limits where Slurm has hierarchical resources; return what counts then."""
        tokens, settings = self.tokens(), self._settings
        is_flat = tokens.total > 0 and not tokens.is_tree
        if not settings.licence or settings.power_tree == "off" or is_flat:
            return tokens
        cluster = parse_config(self._tool.ask("scontrol", "show", "config"))
        if not cluster.has_tree:
            return tokens
        tree = power_tree(plan, settings, known, now_s, charges)
        if tree.left:
            report.skip(_SUBJECT, SkipReason(Skip.NOT_IN_TREE, value=", ".join(tree.left)[:200]))
        if not tree.layers:
            return tokens
        path = Path(settings.resources_file or f"{cluster.folder}/resources.yaml")
        self._file(path, tree, report)
        self._close(tree, now_s, report)
        return self.tokens()

    def _file(self, path: Path, tree: PowerTree, report: WriteReport) -> None:
        licence = self._settings.licence
        try:
            before = resources_file.file_text(path)
            text = resources_file.merged(before, resources_file.resource_text(tree, licence), licence, str(path))
            if text == before and self._is_in_force(tree):
                return
            counts = ", ".join(f"{zone} {layer.count}" for layer in tree.layers for zone in layer.zones)[:200]
            command = Command(f"write {path}: {counts}", _SUBJECT)
            if not report.dry_run and text != before:
                resources_file.replace_text(path, text)
        except OSError as error:
            why = error.strerror or str(error)
            hint = 'run schedule beside slurmctld as its user, or set slurm.power_tree = "off"'
            report.commands.append(Command(f"write {path}", _SUBJECT, f"{path}: {why}: {hint}"))
            return
        report.commands.append(command)
        error_text = "" if report.dry_run else self._reconfigure(path, before, tree)
        report.commands.append(Command("scontrol reconfigure", _SUBJECT, error_text))

    def _reconfigure(self, path: Path, before: str, tree: PowerTree) -> str:
        """Make Slurm read the file; where it does not take it, put the old one back. Returns the error."""
        error = self._tool.one("reconfigure")
        deadline = time.monotonic() + _SETTLE_S
        while not error and time.monotonic() < deadline:
            if self._is_in_force(tree):
                return ""
            time.sleep(0.2)
        if before:
            resources_file.replace_text(path, before)
        else:
            path.unlink(missing_ok=True)
        return f"Slurm did not take {path}, the file before was put back: {error or 'see the log of slurmctld'}"

    def _is_in_force(self, tree: PowerTree) -> bool:
        try:
            return self.tokens().layers == {layer.nodes: layer.count for layer in tree.layers}
        except Retryable:
            return False  # slurmctld starts anew

    def _close(self, tree: PowerTree, now_s: float, report: WriteReport) -> None:
        """Reserve the nodes that are to take nothing new; give back others."""
        text = self._tool.ask("scontrol", "-o", "show", "reservation")
        have = next((one for one in parse_reserved_nodes(text) if one.name == CLOSED), None)
        for line in _closing(tree, None if have is None else (have.nodes, have.end_s), now_s):
            error = "" if report.dry_run else self._tool.one(line)
            report.commands.append(Command(f"scontrol {line}", _SUBJECT, error))

    def release(self, report: WriteReport) -> None:
        """Give back closed nodes; the counts stay, as a flat licence's total does."""
        if re.search(
            rf"^ReservationName={CLOSED} ", self._tool.ask("scontrol", "-o", "show", "reservation"), re.MULTILINE
        ):
            line = f"delete ReservationName={CLOSED}"
            error = "" if report.dry_run else self._tool.one(line)
            report.commands.append(Command(f"scontrol {line}", _SUBJECT, error))


def _closing(tree: PowerTree, have: tuple[frozenset[str], float] | None, now_s: float) -> Sequence[str]:
    is_closed = bool(tree.closed) and tree.closed_until_s > now_s
    if have is not None and is_closed and have == (tree.closed, float(tree.closed_until_s)):
        return ()
    lines = [f"delete ReservationName={CLOSED}"] if have is not None else []
    if is_closed:
        span = f"StartTime=now EndTime={time_text(tree.closed_until_s)} Nodes={compress(sorted(tree.closed))}"
        lines.append(f"create reservation ReservationName={CLOSED} {span} Flags=IGNORE_JOBS Users=root")
    return lines
