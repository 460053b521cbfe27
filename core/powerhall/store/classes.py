"""The class of retention of each line, for stores that keep every class in its own bucket."""

from powerhall.store.documents import DOCUMENT
from powerhall.store.schema import MEASUREMENTS, Retention

__all__ = ["retention_of", "split_lines"]

_CLASSES: dict[str, Retention] = {name: entry.retention for name, entry in MEASUREMENTS.items()}
_CLASSES[DOCUMENT.name] = DOCUMENT.retention
_HEADS: dict[bytes, Retention] = {name.encode(): retention for name, retention in _CLASSES.items()}


def retention_of(measurement: str) -> Retention:
    """Return the class of a measurement; one that the schema does not have counts as `fine`."""
    return _CLASSES.get(measurement, "fine")


def split_lines(lines: bytes) -> dict[Retention, bytes]:
    """Sort line protocol by class, each in its order; a line of an unknown measurement counts as `fine`."""
    parts: dict[Retention, list[bytes]] = {}
    for line in lines.splitlines(keepends=True):
        head = line.split(b" ", 1)[0].split(b",", 1)[0]
        parts.setdefault(_HEADS.get(head, "fine"), []).append(line)
    return {retention: b"".join(found) for retention, found in parts.items()}
