"""`powerhall-twin warm-up`: compile the engine once, at installation."""

from collections.abc import Callable

from powerhall.runtime.command_line import Commands
from powerhall.runtime.warm_up_command import CompiledCache, add_warm_up_parser

__all__ = ["add_parser"]

_TEXT = """\
Compiles the numerical loops of the engine into a cache on disk: about a minute, once per installation, version and CPU.
The first replay does the same, and says so. The cache lies in NUMBA_CACHE_DIR, or in the installation, or in the user's
cache folder. Rounds compile the solver too: `powerhall-optimizer warm-up`.
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    add_warm_up_parser(commands, "the engine", _TEXT, _kernels)


def _kernels() -> tuple[CompiledCache, Callable[[], None]]:
    from powerhall_twin.replay.compiling import compile_kernels, kernel_cache

    return kernel_cache(), compile_kernels
