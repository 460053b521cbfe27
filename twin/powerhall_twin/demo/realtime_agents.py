"""Complete node agents beside the demo: `powerhall-agent run --simulate` on copies of some nodes, in real time.

A daemon runs by the wall clock, so it cannot measure GPUs whose time runs a thousand times faster. Each copy is a
separate node whose GPUs have the same load and limits but advance by the wall clock; its points carry the site
`NAME-realtime`.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from powerhall.site.topology import Rack, Site
from powerhall.store.base import Store
from powerhall.store.questions import latest
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile
from powerhall_twin.site.simulated_nodes import SimulatedNodes, state_path

__all__ = ["RealtimeAgents", "realtime_agents"]

_STOP_S: Final = 10.0
_TOLERANCE: Final = 0.05
_SETTLE_S: Final = 6.0


@dataclass(slots=True)
class RealtimeAgents:
    """The copies by the node that each follows, and their daemons."""

    site: str
    copies: dict[str, StateFile] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def follow(self, nodes: SimulatedNodes) -> None:
        """Set load and limits of every copy to those of its node."""
        for node, copy in self.copies.items():
            original = nodes.states[node]
            for gpu in range(copy.gpus):
                here, there = copy.base(gpu), original.base(gpu)
                for word in (at.C_UTIL, at.C_LIMIT_W, at.C_MEM_UTIL, at.C_MEM_USED, at.C_INLET_C):
                    copy.doubles[here + word] = original.doubles[there + word]

    def check(self, store: Store) -> list[str]:
        """Compare each daemon's newest points with the GPUs that it measures; return one line for each daemon."""
        deadline_s = time.monotonic() + _SETTLE_S
        while True:
            found = [self._compare(store, node, copy) for node, copy in self.copies.items()]
            if all(well for well, _ in found) or time.monotonic() > deadline_s:
                return [text for _, text in found]
            time.sleep(0.3)

    def _compare(self, store: Store, node: str, copy: StateFile) -> tuple[bool, str]:
        where = {"site": self.site, "node": node}
        rows = latest(store, "gpu", ("power_w",), time.time(), max_age_s=30.0, where=where)
        seen_w = sum(row.number("power_w") or 0.0 for row in rows)
        true_w = sum(copy.power_w(gpu) for gpu in range(copy.gpus))
        well = len(rows) == copy.gpus and abs(seen_w - true_w) <= _TOLERANCE * true_w
        mark = "" if well else " (!)"
        return well, f"{node}: {len(rows)} GPUs, {seen_w:.0f} W by the daemon, {true_w:.0f} W drawn{mark}"


@contextmanager
def realtime_agents(site: Site, folder: Path, store: str, count: int) -> Iterator[RealtimeAgents]:
    """Start daemons on copies of the first node of `count` halls; they end with the block."""
    agents = RealtimeAgents(f"{site.name}-realtime")
    (folder / "gpus").mkdir(parents=True, exist_ok=True)
    with (folder / "realtime.log").open("wb") as log:
        try:
            for hall in site.halls[:count]:
                rack = next(hall.racks())
                agents.copies[rack.nodes[0]] = _copy(site, rack, folder)
                agents.processes.append(_start((agents.site, hall.zone), rack, folder, store, log.fileno()))
            yield agents
        finally:
            _stop(agents.processes)


def _copy(site: Site, rack: Rack, folder: Path) -> StateFile:
    kind, node = site.node_types[rack.node_type], rack.nodes[0]
    path = state_path(folder / "gpus", f"realtime-{node}")
    return StateFile.create(path, gpus=kind.gpus, model_name=kind.gpu, node=f"realtime-{node}", seed=1)


def _start(place: tuple[str, str], rack: Rack, folder: Path, store: str, log: int) -> subprocess.Popen[bytes]:
    (site, hall), node = place, rack.nodes[0]
    command = (
        *(
            sys.executable,
            "-c",
            "import signal; from powerhall.runtime.signals import end_with_parent; "
            "end_with_parent(signal.SIGTERM); from powerhall_agent.entry import main; raise SystemExit(main())",
            "run",
            "--simulate",
        ),
        *("--state-file", str(state_path(folder / "gpus", f"realtime-{node}")), "--gpus", "8"),
        *("--site", site, "--hall", hall, "--rack", rack.zone, "--node", node),
        *("--store", store, "--spool", str(folder / "spool" / f"realtime-{node}")),
    )
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + _STOP_S
    for process in processes:
        try:
            process.wait(timeout=max(0.1, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
