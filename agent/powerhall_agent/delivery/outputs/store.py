"""Output to any store of `powerhall.store` that has no output of its own, such as SQLite."""

from powerhall.runtime.errors import ConfigError
from powerhall.store.open import open_store
from powerhall_agent.delivery.errors import SetupError

__all__ = ["StoreOutput", "open_output"]


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
        """Do nothing: SQLite's own busy timeout ends every wait."""


def open_output(url: str, _timeout_s: float) -> StoreOutput:
    """Open the store of this URL as an output."""
    return StoreOutput(url)
