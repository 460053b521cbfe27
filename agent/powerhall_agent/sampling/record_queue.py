"""Records of all threads of the sampler, written in one block with the next full set.

An urgent record (an event, a change of state) makes the block be written at once.
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

    def shift(self, by_ms: int) -> None:
        """Move the timestamps of the waiting records; those of jobs have times of their own."""
        for record in list(self.records):
            if record.series.measurement != "job_interval":
                record.time_ms += by_ms

    def take(self) -> list[Record]:
        """Remove and return all records."""
        self.urgent = False
        taken = []
        while self.records:
            taken.append(self.records.popleft())
        return taken
