"""Reading and writing the caller's structures behind ctypes references."""

import ctypes
from typing import Any

__all__ = ["handle_value", "set_handle", "set_member", "target"]


def target(reference: Any) -> Any:  # noqa: ANN401
    """Return the caller's structure behind a `byref`, or the structure itself."""
    return getattr(reference, "_obj", reference)


def handle_value(handle: Any) -> int:  # noqa: ANN401
    """Return the number inside an opaque handle; 0 for a null handle."""
    return ctypes.c_void_p.from_buffer(target(handle)).value or 0


def set_handle(reference: Any, value: int) -> None:  # noqa: ANN401
    """Store a number in the caller's opaque handle."""
    ctypes.c_void_p.from_buffer(target(reference)).value = value


def set_member(structure: Any, name: str, value: int) -> None:  # noqa: ANN401
    """Store a number in a pointer that is a member of the caller's structure."""
    ctypes.c_void_p.from_buffer(structure, getattr(type(structure), name).offset).value = value
