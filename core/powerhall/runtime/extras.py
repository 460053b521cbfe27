"""Console entry of every program: exit codes, and a one-line message where the libraries of an extra are missing."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence

EXIT_OK = 0
EXIT_REFUSED = 1
"""Refused input or a failed check."""
EXIT_USAGE = 2
EXIT_INTERNAL = 3


def run_command(command: str, extra: str, needs: Sequence[str], cli_module: str) -> int:
    """Import `cli_module` and run its `main()`, which returns an exit code.

    `needs` are the top-level modules that `extra` brings. Where one is absent, one line on stderr says how to get it.
    """
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"{command}: needs the extra '{extra}' (missing: {', '.join(missing)}); pip install 'powerhall[{extra}]'\n"
        )
        return EXIT_REFUSED
    main = importlib.import_module(cli_module).main
    return int(main())
