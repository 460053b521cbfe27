"""Documents (plans, job queues, leases) as points, for stores that only keep points.

A document is compressed and written as base64 text in parts, one point per part, all with one timestamp and one
digest: a string field of InfluxDB holds at most 64 KiB. A document counts only when all of its parts are there.
"""

import base64
import hashlib
import zlib
from collections.abc import Sequence

from powerhall.runtime.decode.bytes_in import decode_base64, inflate
from powerhall.runtime.decode.limits import MOST_JSON_BYTES
from powerhall.runtime.errors import Rejected
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import Field, Measurement

__all__ = ["DOCUMENT", "join_parts", "split_document"]

DOCUMENT = Measurement(
    "document",
    "a plan, job queue or set of leases in parts; the SQLite store has a table of its own for them",
    ("kind", "key", "part"),
    (
        Field("body", "", "part of the compressed document, in base64", is_text=True),
        Field("digest", "", "SHA-256 of the document, the same in all of its parts", is_text=True),
        Field("parts", "", "number of parts"),
    ),
    300.0,
    "recent",
)
PART_BYTES = 60_000


def split_document(kind: str, key: str, time_ms: int, body: bytes) -> bytes:
    """Return the line protocol of a document."""
    text = base64.b64encode(zlib.compress(body)).decode("ascii")
    parts = [text[at : at + PART_BYTES] for at in range(0, len(text), PART_BYTES)]
    digest = hashlib.sha256(body).hexdigest()
    return b"".join(
        encode(
            Point(
                DOCUMENT.name,
                {"kind": kind, "key": key, "part": str(number)},
                {"body": part, "digest": digest, "parts": float(len(parts))},
                time_ms,
            )
        )
        for number, part in enumerate(parts)
    )


def join_parts(parts: Sequence[str], digest: str) -> bytes | None:
    """Return the document of these parts, in order; None when parts are missing."""
    try:
        body = inflate(decode_base64("".join(parts), "document"), "document", MOST_JSON_BYTES)
    except Rejected:
        return None
    return body if hashlib.sha256(body).hexdigest() == digest else None
