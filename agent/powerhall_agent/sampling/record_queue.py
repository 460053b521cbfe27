"""What waits to be handed over: records of the sampler's threads, written in one block with the next full set.

A record that somebody waits for (an event, a change of state) is marked urgent, and the block is written at once.
"""

from collections import deque

from powerhall_agent.base.encoder import Record

__all__ = ["RecordQueue"]


class RecordQueue:
    """Records from any thread, oldest first."""

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.urgent = False

    def put(self, record: Record, *, urgent: bool = False) -> None:
        """Add a record."""
        self.records.append(record)
        if urgent:
            self.urgent = True

    def take(self) -> list[Record]:
        """Take out all that wait."""
        self.urgent = False
        taken = []
        while self.records:
            taken.append(self.records.popleft())
        return taken
