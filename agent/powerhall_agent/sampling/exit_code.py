"""Exit codes of the sampler process; the daemon, which loads neither NVML nor the sampler, reads them here."""

from enum import IntEnum

__all__ = ["SamplerExit"]


class SamplerExit(IntEnum):
    """Why the sampler ended."""

    STOPPED = 0
    FAILED = 1
    """An exception that none of its parts could take; its traceback is in the log."""
    UNBIND = 10
    """The driver is to be unbound: start again only after some seconds."""
    MISMATCH = 11
    """The loaded library does not fit the driver: start a new process at once."""
    REFUSED = 12
    """The settings are refused: starting again does not help."""
