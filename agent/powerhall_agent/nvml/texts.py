"""Texts of the driver, which need not be UTF-8: drivers 555.85 to 555.99 gave names of random bytes under WSL."""

from collections.abc import Callable

__all__ = ["driver_text"]


def driver_text(call: Callable[..., object], *arguments: object) -> str:
    """Call a function of pynvml that returns a text; bytes that are not UTF-8 are written as `\\xNN`.

    pynvml decodes in a wrapper around the function, which raises UnicodeDecodeError; the function itself returns bytes.
    """
    found = getattr(call, "__wrapped__", call)(*arguments)
    return found.decode("utf-8", "backslashreplace") if isinstance(found, bytes) else str(found)
