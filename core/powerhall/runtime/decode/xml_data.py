"""XML from outside, of limited depth and without entities of its own."""

import xml.etree.ElementTree as ET
from io import BytesIO

from powerhall.runtime.decode.limits import MOST_DEPTH, MOST_DOCUMENT_BYTES, enlarged, size_text
from powerhall.runtime.errors import Rejected

__all__ = ["decode_xml"]


def decode_xml(text: str, source: str) -> ET.Element:
    """Return the root of a document; one that is malformed, too deep, or declares an entity raises Rejected."""
    if len(text) > enlarged(MOST_DOCUMENT_BYTES):
        raise Rejected(f"{source}: larger than {size_text(enlarged(MOST_DOCUMENT_BYTES))}, the most that is read")
    if "<!ENTITY" in text:
        raise Rejected(f"{source}: line {_line(text, '<!ENTITY')}: must not declare entities")
    depth = 0
    body = BytesIO(text.encode("utf-8", "replace"))
    element = ET.Element("")
    try:
        for event, element in ET.iterparse(body, ("start", "end"), ET.XMLParser(encoding="utf-8")):  # noqa: B007, S314
            depth += 1 if event == "start" else -1
            if depth > MOST_DEPTH:
                raise Rejected(f"{source}: nested deeper than {MOST_DEPTH} levels")
    except (ET.ParseError, ValueError) as error:
        raise Rejected(f"{source}: not valid XML: {error}") from None
    return element


def _line(text: str, found: str) -> int:
    return text.count("\n", 0, text.index(found)) + 1
