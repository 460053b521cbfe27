"""The schema of the store as a page of documentation, made from powerhall.store.schema."""

from powerhall.store.documents import DOCUMENT
from powerhall.store.schema import MEASUREMENTS, RETENTION_DAYS, SCHEMA_VERSION, Measurement

__all__ = ["schema_markdown"]

_CLASSES = ", ".join(f"`{name}` {days} days" for name, days in RETENTION_DAYS.items())
_HEAD = f"""\
# What is stored

Schema version {SCHEMA_VERSION}. This page is made by
`powerhall-dashboards build` from `core/powerhall/store/schema.py`; a test keeps them equal.

Rules that hold for every measurement, so that InfluxDB 1.6 to 3 and SQLite store it alike:

* every number is a float; text fields are marked;
* the tags of a measurement are fixed; an absent tag is the empty text; job, user and UUID are never tags;
* timestamps are whole milliseconds since the epoch, UTC;
* a point is its measurement, tags and time: written again it overwrites itself.

A measurement belongs to a class of retention: {_CLASSES}. How
stores keep them apart is on [the store](../guide/store.md#retention).

"""


def schema_markdown() -> str:
    """Return the page."""
    entries = (*MEASUREMENTS.values(), DOCUMENT)
    contents = "".join(f"* [{entry.name}](#{entry.name}): {entry.text}\n" for entry in entries)
    return _HEAD + contents + "".join(_section(entry) for entry in entries)


def _section(entry: Measurement) -> str:
    cadence = f"a point every {entry.cadence_s:g} s" if entry.cadence_s else "a point when something happens"
    rows = "".join(f"| {f.name} | {'text' if f.is_text else f.unit or '–'} | {f.text} |\n" for f in entry.fields)
    return (
        f"\n## {entry.name}\n\n{entry.text[0].upper()}{entry.text[1:]}. "
        f"Usually {cadence}, kept {entry.retention_days} days (`{entry.retention}`).\n\n"
        f"Tags: {', '.join(entry.tags)}.\n\n| field | unit | meaning |\n| --- | --- | --- |\n{rows}"
    )
