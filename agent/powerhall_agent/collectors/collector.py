"""The interface of a collector: one sensor family behind one method."""

from typing import Protocol

from powerhall_agent.base.encoder import Fields

__all__ = ["Collector"]


class Collector(Protocol):
    """Reads one sensor family of one GPU, MIG instance or host."""

    def collect(self) -> Fields:
        """Return the values by field name of the schema; a sensor without data is left out.

        Raises pynvml.NVMLError, OSError or powerhall.runtime.errors.PowerhallError where the family cannot be read.
        """
