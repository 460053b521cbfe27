"""Opens the output of a store URL, by one table of the schemes that have an output of their own.

Every other kind of store is written through `powerhall.store`, so that a new kind of store needs no output of its own.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Final

from powerhall.store.open import scheme_of
from powerhall_agent.delivery.outputs.base import Output

__all__ = ["OUTPUTS", "open_output"]

OUTPUTS: Final[Mapping[str, str]] = {"influxdb": "powerhall_agent.delivery.outputs.influxdb"}
"""URL scheme to the module with its `open_output`."""
_ANY_STORE: Final = "powerhall_agent.delivery.outputs.store"


def open_output(url: str, timeout_s: float) -> Output:
    """Open the output of a store URL; a URL that is refused raises ConfigError."""
    module = importlib.import_module(OUTPUTS.get(scheme_of(url), _ANY_STORE))
    opened: Callable[[str, float], Output] = module.open_output
    return opened(url, timeout_s)
