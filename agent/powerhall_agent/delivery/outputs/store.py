"""Output to the embedded store (SQLite) of this machine."""

from powerhall.runtime.errors import ConfigError
from powerhall.store.url import open_store
from powerhall_agent.delivery.outputs.base import SetupError

__all__ = ["StoreOutput"]


class StoreOutput:
    """Writes batches through `powerhall.store`."""

    def __init__(self, url: str) -> None:
        self._store = open_store(url)

    def send(self, lines: bytes) -> None:
        """Write the lines in one transaction."""
        try:
            self._store.write(lines)
        except ConfigError as error:
            raise SetupError(str(error)) from None

    def cut(self) -> None:
        """A local file needs no cutting: SQLite's own busy timeout ends every wait."""
