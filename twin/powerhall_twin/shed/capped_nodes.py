"""Simulated nodes under the agent's cappers: a capper sets the limits of its node by the leases of its carrier."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from powerhall.lease import GpuCap, SignedLease, node_key
from powerhall.runtime.log import Log
from powerhall.store.base import Store
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.carrier import Carrier
from powerhall_agent.capper.client import Reply
from powerhall_agent.capper.limiter import Range
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile
from powerhall_twin.site.simulated_nodes import SimulatedNodes

__all__ = ["CappedNode", "CappedNodes", "StateLimiter"]

_HEARTBEAT_S: Final = 0.5
"""Seconds between heartbeats of a carrier to its capper, as in `powerhall-agent lease`."""


@dataclass(frozen=True, slots=True)
class StateLimiter:
    """Sets and reads the limits of one simulated node; takes the place of NVML."""

    state: StateFile

    def ranges(self) -> dict[int, Range]:
        """Return the accepted range per GPU number."""
        return {gpu: Range(self._get(gpu, at.C_LIMIT_MIN_W), self._get(gpu, at.C_LIMIT_MAX_W)) for gpu in self._gpus}

    def read(self) -> tuple[GpuCap, ...]:
        """Return the limits in force."""
        return tuple(GpuCap(gpu, self._get(gpu, at.C_LIMIT_W)) for gpu in self._gpus)

    def clocks_mhz(self, gpus: Sequence[int]) -> dict[int, float]:
        """Return the clocks of these GPUs."""
        return {gpu: self._get(gpu, at.C_CLOCK_MHZ) for gpu in gpus}

    def apply(self, caps: tuple[GpuCap, ...]) -> None:
        """Set limits and clock locks."""
        for cap in caps:
            base = self.state.base(cap.gpu)
            self.state.doubles[base + at.C_LOCK_MHZ] = cap.sm_clock_mhz or 0.0
            if cap.power_limit_w is not None:
                self.state.doubles[base + at.C_LIMIT_W] = cap.power_limit_w

    @property
    def _gpus(self) -> range:
        return range(self.state.gpus)

    def _get(self, gpu: int, word: int) -> float:
        return self.state.doubles[self.state.base(gpu) + word]


@dataclass(slots=True)
class CappedNode:
    """A node's capper, and the client that its carrier calls; `now_s` is simulated time."""

    capper: Capper
    limiter: StateLimiter
    now_s: float = 0.0

    def alive(self) -> Reply:
        """Receive the carrier's heartbeat."""
        self.capper.heard(self.now_s)
        return Reply(self.capper.status(), "", self.capper.confirmation(self.now_s))

    def offer(self, lease: SignedLease) -> Reply:
        """Receive a lease."""
        self.capper.offer(lease, self.now_s, self.now_s)
        return self.alive()


@dataclass(slots=True)
class CappedNodes:
    """All capped nodes; each carrier polls the store every `poll_s` at an offset of its own."""

    nodes: dict[str, CappedNode] = field(default_factory=dict)
    carriers: dict[str, Carrier] = field(default_factory=dict)
    next_turn_s: dict[str, float] = field(default_factory=dict)
    next_poll_s: dict[str, float] = field(default_factory=dict)
    poll_s: float = 2.0

    @classmethod
    def open(
        cls,
        simulated: SimulatedNodes,
        store: Store,
        site_key: bytes,
        folder: Path,
        now_s: float,
        *,
        safe_limit_w: float,
        poll_s: float,
        seed: int,
        log: Log,
    ) -> "CappedNodes":
        """Start a capper and a carrier on every node; the safe caps are in force from then on."""
        made, rng = cls(poll_s=poll_s), random.Random(seed)  # noqa: S311 - spreads the polls
        folder.mkdir(parents=True, exist_ok=True)
        for name, state in simulated.states.items():
            limiter = StateLimiter(state)
            capper = Capper(
                limiter,
                node=name,
                key=node_key(site_key, name),
                safe_limit_w=safe_limit_w,
                memory=folder / f"{name}.json",
                started_s=now_s,
            )
            made.nodes[name] = CappedNode(capper, limiter, now_s)
            made.carriers[name] = Carrier(store, store, made.nodes[name], name, log)
            made.next_turn_s[name] = now_s + rng.uniform(0.0, _HEARTBEAT_S)
            made.next_poll_s[name] = now_s + rng.uniform(0.0, poll_s)
        return made

    def advance(self, now_s: float) -> None:
        """Run the carriers and cappers that are due at this moment."""
        for name, node in self.nodes.items():
            node.now_s, carrier = now_s, self.carriers[name]
            if now_s >= self.next_poll_s[name] or carrier.has_news:
                self.next_poll_s[name] = now_s + self.poll_s
                carrier.exchange(now_s, now_s)
            if now_s >= self.next_turn_s[name]:
                self.next_turn_s[name] = now_s + _HEARTBEAT_S
                carrier.turn()
            node.capper.tick(now_s)
