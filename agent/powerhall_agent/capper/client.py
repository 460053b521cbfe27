"""The agent's end of the capper's socket: offers leases, sends heartbeats, and returns the replies."""

import socket
from pathlib import Path

import msgspec

from powerhall.lease import RefusedForNow, SignedConfirmation, SignedLease
from powerhall.runtime.errors import Rejected, Retryable
from powerhall_agent.capper.capper import Status
from powerhall_agent.capper.server import Message

__all__ = ["CapperClient", "Reply"]


class Reply(msgspec.Struct, frozen=True):
    """The reply of the capper: its status, why it refused the message (or ""), and its confirmation for the ledger.

    `later` is true where a refused lease may be accepted later.
    """

    status: Status
    refused: str = ""
    confirmation: SignedConfirmation | None = None
    later: bool = False


class CapperClient:
    """One connection to the capper; connects again by itself. A capper that does not answer raises Retryable."""

    def __init__(self, path: Path, timeout_s: float = 2.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def offer(self, lease: SignedLease) -> Reply:
        """Hand a lease over; a refused one raises Rejected with the reason (RefusedForNow: try later)."""
        reply = self._ask(Message(lease=lease))
        if reply.refused:
            raise (RefusedForNow if reply.later else Rejected)(reply.refused)
        return reply

    def alive(self) -> Reply:
        """Send a heartbeat; needed at least once a second."""
        return self._ask(Message(alive=True))

    def close(self) -> None:
        """Close the connection; without another one the capper falls back to the safe caps."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, message: Message) -> Reply:
        try:
            connection = self._socket or self._connect()
            connection.sendall(msgspec.json.encode(message) + b"\n")
            answer = _line(connection)
        except OSError as error:
            self.close()
            raise Retryable(f"capper: {self._path}: {error}") from None
        try:
            return msgspec.json.decode(answer, type=Reply)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.close()
            raise Retryable(f"capper: {self._path}: an answer that cannot be read: {error}") from None

    def _connect(self) -> socket.socket:
        self.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(self._timeout_s)
        self._socket.connect(str(self._path))
        return self._socket


def _line(connection: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError("the capper closed the connection")
        answer += part
    return answer
