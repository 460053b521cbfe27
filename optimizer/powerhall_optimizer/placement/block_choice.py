"""Choice of blocks for a gang: best fit, one part after the other, within the power limits of the zones around them."""

from collections.abc import Mapping, Sequence

from powerhall_optimizer.placement.zone_headroom import ZoneHeadroom
from powerhall_optimizer.problem.gang_blocks import Parts

__all__ = ["BlockChoice"]


class BlockChoice:
    """Free whole nodes by block, for one gang that adds `node_w` per node over one span of slots.

    `rack_of` has the rack of every node by its number.
    """

    def __init__(
        self,
        free: Mapping[int, Sequence[int]],
        rack_of: Mapping[int, str],
        headroom: ZoneHeadroom,
        node_w: float,
        span: tuple[int, int],
    ) -> None:
        self.free = {block: list(nodes) for block, nodes in free.items()}
        self.rack_of = rack_of
        self.headroom = headroom
        self.node_w = node_w
        self.span = span
        self.chosen: list[int] = []
        self.loads: dict[str, float] = {}

    def nodes(self, parts: Parts) -> list[int] | None:
        """Return the nodes of all parts, part by part, or None where the blocks do not hold them."""
        if not parts.fit(map(len, self.free.values())):
            return None
        for _ in range(parts.count):
            if not any(self._take(block, parts.nodes) for block in self._order(parts.nodes)):
                return None
        return self.chosen

    def _order(self, size: int) -> list[int]:
        """Return the blocks that hold a part: first those that whole parts leave the fewest nodes of."""
        large = {block: len(nodes) for block, nodes in self.free.items() if len(nodes) >= size}
        return sorted(large, key=lambda block: (large[block] % size, large[block], block))

    def _take(self, block: int, size: int) -> bool:
        """Put a part into a block where the zones' power allows it."""
        nodes = self.free[block][:size]
        if not self.headroom.fits(self._with(nodes), *self.span):
            nodes = self._carried(block, size)
        if len(nodes) < size:
            return False
        self.loads = self._with(nodes)
        self.chosen += nodes
        taken = set(nodes)
        self.free[block] = [node for node in self.free[block] if node not in taken]
        return True

    def _with(self, nodes: Sequence[int]) -> dict[str, float]:
        loads = dict(self.loads)
        for node in nodes:
            rack = self.rack_of[node]
            loads[rack] = loads.get(rack, 0.0) + self.node_w
        return loads

    def _carried(self, block: int, size: int) -> list[int]:
        """Return nodes of a block for a part, one after the other as far as the zones' power carries them."""
        found: list[int] = []
        for node in self.free[block]:
            if len(found) < size and self.headroom.fits(self._with([*found, node]), *self.span):
                found.append(node)
        return found
