"""`powerhall-optimizer warm-up`: compile the solver once, at installation."""

from collections.abc import Callable

from powerhall.runtime.command_line import Commands
from powerhall.runtime.warm_up_command import CompiledCache, add_warm_up_parser

__all__ = ["add_parser"]

_DESCRIPTION = """\
Compiles the numerical loops of the solver into a cache on disk: about a minute, once per installation, version and
CPU. A round whose cache is cold does the same before its own seconds begin, and says so. The cache lies in
NUMBA_CACHE_DIR, or in the installation, or in the user's cache folder: run it as the user of the service.
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    add_warm_up_parser(commands, "the solver", _DESCRIPTION, _kernels)


def _kernels() -> tuple[CompiledCache, Callable[[], None]]:
    from powerhall_optimizer.jit import cache_state
    from powerhall_optimizer.planning.compiling import compile_all

    return cache_state(), compile_all
