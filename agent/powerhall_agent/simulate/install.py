"""Puts the stand-in library in the place of the real one."""

from collections.abc import Sequence

import pynvml

from powerhall_agent.simulate.library import SimulatedLibrary
from powerhall_agent.simulate.state import StateFile

__all__ = ["install"]


def install(states: Sequence[StateFile]) -> SimulatedLibrary:
    """Let pynvml answer from these nodes; call it before `nvmlInit`.

    pynvml keeps the functions that it has looked up; those of an earlier library are forgotten.
    """
    library = SimulatedLibrary(states)
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001  # pynvml offers no other way to change the library
    return library
