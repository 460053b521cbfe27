"""Parts of Redfish documents, whatever a service puts in their place: null, texts, single objects for lists."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from powerhall.runtime.decode.numbers_in import digits

__all__ = [
    "Document",
    "is_in_use",
    "item",
    "items",
    "link",
    "links",
    "members",
    "number",
    "part",
    "pointed",
    "text",
    "word_list",
]

Document = Mapping[str, object]
_NUMBER: Final = re.compile(r"\s*([+-]?\d{1,12}(?:\.\d{1,12})?(?:[eE][+-]?\d{1,2})?)\s*(?:[wW]|watts?|Watts?|°?C)?\s*")
"""A number as text, as some services give it, with its unit or without."""
_MOST_MEMBERS: Final = 400
_NOT_IN_USE: Final = frozenset(("Absent", "Disabled", "UnavailableOffline"))
_WORD: Final = re.compile(r"[A-Z]{2,}s?(?![a-z])|[A-Z]?[a-z]+|\d+")


def number(value: object) -> float | None:
    """Return the finite number that a value is, or that its text or its `Reading` is; None where there is none."""
    if isinstance(value, Mapping):
        value = value.get("Reading")
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value)
        value = float(found.group(1)) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def part(document: object, *names: str) -> object:
    """Return the value under nested names; None where one of them is missing."""
    for name in names:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def item(document: object, *names: str) -> Document:
    """Return the object under nested names; an empty one where there is none."""
    found = part(document, *names)
    return found if isinstance(found, Mapping) else {}


def items(document: object, *names: str) -> list[Document]:
    """Return the objects of the list under nested names; a single object counts as a list of one."""
    found = part(document, *names)
    if isinstance(found, Mapping):
        return [found]
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def text(document: object, *names: str) -> str:
    """Return the text under nested names; "" where there is none."""
    found = part(document, *names)
    return found if isinstance(found, str) else ""


def link(document: object, *names: str) -> str:
    """Return the path that a link under nested names holds; "" where there is none."""
    found = part(document, *names)
    path = found if isinstance(found, str) else text(found, "@odata.id")
    return path.partition("#")[0].rstrip("/") if path.startswith("/") else ""


def links(document: object, *names: str) -> list[str]:
    """Return the paths of the links in the list under nested names, without those that hold none."""
    return [path for entry in items(document, *names) if (path := link(entry))]


def members(get: Callable[[str], Document | None], path: str) -> list[str]:
    """Return the paths of a collection's members, over its pages; none where a page cannot be read."""
    found, pages = list[str](), set[str]()
    while path and path not in pages and len(found) < _MOST_MEMBERS:
        pages.add(path)
        page = get(path)
        if page is None:
            return []  # a sum over the others would be too small
        found += [member for member in links(page, "Members") if member not in found]
        path = link(page, "Members@odata.nextLink")
    return found[:_MOST_MEMBERS]


def is_in_use(resource: object) -> bool:
    """Return whether a resource does not say that it is absent, disabled or without a connection (`Status`)."""
    return text(resource, "Status", "State") not in _NOT_IN_USE


def word_list(*texts: str) -> Iterator[str]:
    """Yield the words of identifiers in lower case, plurals as both: `HGX_GPU_SXM_1`, `TotalGPUs`, `SystemBoardPwr`."""
    for name in texts:
        for word in _WORD.findall(name):
            yield word.lower()
            if len(word) > 3 and word.endswith("s"):
                yield word[:-1].lower()


def pointed(document: object, pointer: str) -> float:
    """Return the number that an RFC 6901 pointer names; LookupError where there is none."""
    for name in pointer.split("/")[1:]:
        key = name.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list) and (at := digits(key)) is not None and at < len(document):
            document = document[at]
        elif isinstance(document, Mapping) and key in document:
            document = document[key]
        else:
            raise LookupError(f"{pointer}: not in the resource")
    found = None if isinstance(document, Mapping) else number(document)
    if found is None:
        raise LookupError(f"{pointer}: {str(document)[:40]!r} is not a number")
    return found
