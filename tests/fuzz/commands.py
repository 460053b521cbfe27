"""Runs a whole command in this process and holds it to its promises about errors."""

import contextlib
import io
from collections.abc import Callable, Sequence

from powerhall.runtime.errors import Rejected

__all__ = ["command"]


def command(main: Callable[[Sequence[str]], int], arguments: list[str]) -> None:
    """Run it; exit code 0, or 1 or 2 with lines on stderr. An AssertionError holds the output that broke this."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as error:  # of argparse
            code = int(error.code or 0)
    said = err.getvalue()
    assert "Traceback" not in said, said
    assert code in (0, 1, 2), (code, said)
    assert len(said) < 100_000, (len(said), said[:500])
    if code:
        lines = said.splitlines() or out.getvalue().splitlines()
        raise Rejected(lines[-1][:1900] if lines else "without a word")
