"""How long leases may be."""

from typing import Final

__all__ = ["LONGEST_LEASE_S"]

LONGEST_LEASE_S: Final = 3600.0
"""No lease is granted for longer, in seconds: what may be in force is never older than this."""
