"""Check a plan as its readers will decode it, once: what passed need not be checked again before it is published."""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

__all__ = ["check_encoded"]

P = TypeVar("P", bound=msgspec.Struct)
V = TypeVar("V")
_MOST = 64
_passed: dict[bytes, None] = {}
"""Digests of encoded plans that passed in this process, the newest last."""


def check_encoded(plan: P, verify: Callable[[P], list[V]]) -> tuple[bytes, list[V]]:
    """Return the encoded plan, and what the checker finds wrong with it as decoded: nothing where it passed before."""
    body = msgspec.json.encode(plan)
    digest = hashlib.sha256(body).digest()
    if digest in _passed:
        return body, []
    broken = verify(msgspec.json.decode(body, type=type(plan)))
    if not broken:
        _passed[digest] = None
        while len(_passed) > _MOST:
            del _passed[next(iter(_passed))]
    return body, broken
