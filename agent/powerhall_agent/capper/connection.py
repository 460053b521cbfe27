"""One connection of an agent to the capper: lines in, answers out, nothing without a bound."""

import contextlib
import socket
from typing import Final

from powerhall_agent.capper.node_clock import boot_s

__all__ = ["Connection"]

_LINE_BYTES: Final = 64 * 1024
_HALF_LINE_S: Final = 5.0
_IDLE_S: Final = 60.0


class Connection:
    """A connected socket and what has arrived on it; no method blocks or raises for what the peer does."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._socket: socket.socket | None = peer
        self._buffer = bytearray()
        self._half_since_s: float | None = None
        self.used_s = boot_s()
        """When the peer last sent something, by the boot clock."""

    @property
    def is_open(self) -> bool:
        """Whether the connection has neither failed nor been closed."""
        return self._socket is not None

    @property
    def descriptor(self) -> int:
        """The file descriptor, to wait for messages; -1 when closed."""
        return self._socket.fileno() if self._socket is not None else -1

    @property
    def has_line(self) -> bool:
        """Whether a whole line waits to be read."""
        return b"\n" in self._buffer

    def is_late(self, now_s: float) -> bool:
        """Whether the rest of a line is overdue, or nothing has come for a minute."""
        half = self._half_since_s is not None and now_s - self._half_since_s > _HALF_LINE_S
        return half or now_s - self.used_s > _IDLE_S

    def receive(self) -> None:
        """Take in what has arrived, unless a line waits already: the peer has to wait then."""
        if self._socket is None or self.has_line:
            return
        try:
            data = self._socket.recv(_LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffer += data
        self.used_s = boot_s()
        if not data or (len(self._buffer) > _LINE_BYTES and not self.has_line):
            self.close()
        self._note_half()

    def next_line(self) -> bytes | None:
        """Return the next whole line; None where there is none."""
        line, end, rest = self._buffer.partition(b"\n")
        if not end:
            return None
        self._buffer = rest
        self._half_since_s = None
        self._note_half()
        return bytes(line)

    def send(self, answer: bytes) -> None:
        """Send an answer; a peer that does not read loses its connection."""
        if self._socket is None:
            return
        try:
            self._socket.sendall(answer)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket = None

    def _note_half(self) -> None:
        if not self._buffer or self.has_line:
            self._half_since_s = None
        elif self._half_since_s is None:
            self._half_since_s = boot_s()
