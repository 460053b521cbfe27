"""TLS of a server whose certificate and key are read again when their files change."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.files import check_regular
from powerhall.runtime.log import Log

__all__ = ["ServerTls"]

_LOOK_S = 1.0


class ServerTls:
    """Gives the context for each new connection; files that do not fit are reported and the former pair is kept."""

    def __init__(self, cert: Path, key: Path | None, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        """Read both files; ones that do not fit raise ConfigError."""
        self._cert, self._key, self._log, self._clock = cert, key, log, clock
        self._seen, self._looked_s = self._stamp(), clock()
        try:
            self._context = self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{cert}: certificate or key cannot be used: {_reason(error)}") from None

    def context(self) -> ssl.SSLContext:
        """Return the context in force; the files are looked at once a second at most."""
        now_s = self._clock()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._reload()
        return self._context

    def _reload(self) -> None:
        try:
            self._context = self._load()
        except (OSError, ssl.SSLError) as error:
            self._log.error("tls_not_reloaded", file=self._cert, detail=_reason(error))
        else:
            self._log.info("tls_reloaded", file=self._cert)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        check_regular(self._cert, self._key)  # load_cert_chain would wait for a pipe
        context.load_cert_chain(self._cert, self._key)
        return context

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._cert, self._key) if path is not None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _reason(error: OSError) -> str:
    return str(error.strerror or error)
