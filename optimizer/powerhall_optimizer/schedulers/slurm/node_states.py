"""Words of a node's state, in whichever form Slurm and its wrappers write them.

A list of words, words in one text (`IDLE+DRAIN`), or a short form of `sinfo` with signs for flags (`mix-`, `down*`).
"""

import re
from collections.abc import Iterable

__all__ = ["node_states"]

_SIGNS = {
    "*": "NOT_RESPONDING", "~": "POWERED_DOWN", "#": "POWERING_UP", "!": "POWER_DOWN", "%": "POWERING_DOWN",
    "$": "MAINT", "@": "REBOOT_REQUESTED", "^": "REBOOT_ISSUED", "-": "PLANNED",
}  # fmt: skip
"""What `sinfo` appends to a state."""
_SHORT = {
    "ALLOC": "ALLOCATED", "MIX": "MIXED", "COMP": "COMPLETING", "DRNG": "DRAINING", "FAILG": "FAILING",
    "RESV": "RESERVED", "PLND": "PLANNED", "FUTR": "FUTURE", "UNK": "UNKNOWN", "BOOT": "REBOOT_ISSUED",
    "POW_DN": "POWERING_DOWN", "POW_UP": "POWERING_UP", "BLOCK": "BLOCKED", "INVAL": "INVALID",
}  # fmt: skip


def node_states(texts: Iterable[str]) -> frozenset[str]:
    """Return the words in capitals, signs as the flags that they stand for; `UNKNOWN` where there is no word."""
    found: set[str] = set()
    for text in texts:
        for word, signs in re.findall(r"([A-Z_]+)([^A-Z_\s+,|]*)", text.upper()):
            found.add(_SHORT.get(word, word))
            found.update(_SIGNS[sign] for sign in signs if sign in _SIGNS)
    return frozenset(found or {"UNKNOWN"})
