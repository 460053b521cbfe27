"""The connections of a urllib3 pool, so that another thread can end a request that never completes."""

import socket
import threading
from typing import Any, Protocol

__all__ = ["Sockets", "track_sockets"]


class _Connection(Protocol):
    sock: socket.socket | None

    def connect(self) -> None: ...


class Sockets:
    """The open connections of one client."""

    def __init__(self) -> None:
        self._open: set[_Connection] = set()
        self._lock = threading.Lock()

    def add(self, connection: _Connection) -> None:
        """Remember a connection that was just made."""
        with self._lock:
            self._open = {entry for entry in self._open if entry.sock is not None} | {connection}

    def shut(self) -> None:
        """End whatever is under way on any of them."""
        with self._lock:
            for connection in self._open:
                if connection.sock is not None:
                    try:
                        connection.sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        continue


def track_sockets(manager: Any) -> Sockets:  # noqa: ANN401 - urllib3.PoolManager, imported elsewhere
    """Record the connections of a urllib3 pool manager."""
    sockets = Sockets()
    manager.pool_classes_by_scheme = {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": _tracked(pool.ConnectionCls, sockets)})
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }
    return sockets


def _tracked(connection_class: type[_Connection], sockets: Sockets) -> type:
    def connect(self: _Connection) -> None:
        connection_class.connect(self)
        sockets.add(self)

    return type(connection_class.__name__, (connection_class,), {"connect": connect})
