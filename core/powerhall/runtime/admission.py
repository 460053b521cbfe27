"""Admission of connections: how many may be open, how many of them by one peer, and which one yields.

A newcomer is never turned away because slow clients hold every place: the connection that has waited longest without an
authorised request is closed for it, of the same peer where that peer has more than its share, else of the peer that
holds most. A request therefore gets through as long as it is complete before as many connections as one peer may have
are opened after it, also when the slow clients come from its own address. Connections with an authorised request are
kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

__all__ = ["Admission", "Visitor", "peer_of"]


@dataclass(eq=False, slots=True)
class Visitor:
    """One connection; `leave` closes it from outside."""

    peer: str
    leave: Callable[[], object]
    kept: bool = False


class Admission:
    """Counts the connections of one listener; not for use by several threads."""

    def __init__(self, most: int, most_per_peer: int) -> None:
        self.most, self.most_per_peer = most, most_per_peer
        self._waiting: dict[str, dict[int, Visitor]] = {}
        self._kept: dict[int, Visitor] = {}

    def __len__(self) -> int:
        """Count all connections."""
        return len(self._kept) + sum(len(of_peer) for of_peer in self._waiting.values())

    def enter(self, visitor: Visitor) -> bool:
        """Let a connection in, closing another one where it must be; False where all the others are kept."""
        of_peer = self._waiting.get(visitor.peer, {})
        if len(of_peer) >= self.most_per_peer:
            self._close_oldest(visitor.peer)
        elif len(self) >= self.most and not self.make_room():
            return False
        self._waiting.setdefault(visitor.peer, {})[id(visitor)] = visitor
        return True

    def keep(self, visitor: Visitor) -> None:
        """Do not close this connection for another one: its request is authorised."""
        self._remove(visitor)
        self._kept[id(visitor)] = visitor

    def exit(self, visitor: Visitor) -> None:
        """Forget a connection that ended; more than once does no harm."""
        self._remove(visitor)
        self._kept.pop(id(visitor), None)

    def make_room(self) -> bool:
        """Close the longest waiting connection of the peer that has most; False where nobody waits."""
        if not self._waiting:
            return False
        self._close_oldest(max(self._waiting, key=lambda peer: len(self._waiting[peer])))
        return True

    def all(self) -> list[Visitor]:
        """Return every connection."""
        return [*self._kept.values(), *(one for of_peer in self._waiting.values() for one in of_peer.values())]

    def _close_oldest(self, peer: str) -> None:
        oldest = next(iter(self._waiting[peer].values()))
        self._remove(oldest)
        oldest.leave()

    def _remove(self, visitor: Visitor) -> None:
        of_peer = self._waiting.get(visitor.peer, {})
        of_peer.pop(id(visitor), None)
        if not of_peer:
            self._waiting.pop(visitor.peer, None)


def peer_of(host: str) -> str:
    """Return what counts as one peer: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, 64), strict=False))
