"""What commands that only show a plan say about one that contradicts itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from powerhall.runtime.errors import Rejected

__all__ = ["consistent"]


@contextmanager
def consistent(path: Path) -> Iterator[None]:
    """Raise Rejected where a plan names what it does not have, or counts what cannot be; `verify` says which."""
    try:
        yield
    except (LookupError, ArithmeticError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"[:80]
        raise Rejected(f"{path}: contradicts itself ({why}): `powerhall-optimizer verify {path}` says where") from None
