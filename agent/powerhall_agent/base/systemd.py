"""sd_notify: reports ready, alive, reloading and stopping to systemd; does nothing where NOTIFY_SOCKET is not set.

Protocol: datagrams of KEY=VALUE lines to the socket in NOTIFY_SOCKET (sd_notify(3), systemd 252).
"""

import os
import socket
import time

from powerhall.runtime.decode.numbers_in import digits

__all__ = ["Notifier"]


class Notifier:
    """Sends states to the service manager that started us."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        values = dict(os.environ) if environment is None else environment
        path = values.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        mine = values.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = values.get("WATCHDOG_USEC", "")
        self.watchdog_s = (digits(usec) or 0) / 2e6 or None if mine and self._address else None
        """Seconds between watchdog notifications: half of WATCHDOG_USEC; None without a watchdog."""

    def ready(self, status: str) -> None:
        """Report that start or reload is complete."""
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Notify the watchdog that the main loop runs."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report that a reload begins (Type=notify-reload needs the monotonic time)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the shutdown begins."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.connect(self._address)
                out.sendall(text.encode())
        except OSError:
            return  # the service manager is gone; the daemon runs on without it
