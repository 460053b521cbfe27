"""The second process of the capper: it ends a lease on time while the capper itself stands still.

A capper that is stopped (SIGSTOP), or waits for a disk, cannot lower its GPUs when their lease runs out; its watchdog
ends it only seconds later. The guard is told the end of every lease before its caps are set, and that the safe caps
hold again after they were set. When an end has passed for half a second without that word, it sets the safe caps
itself, as `powerhall-safecaps` does. It never raises a limit, opens the driver only then, and ends with the capper.

It reads lines of the end in seconds of CLOCK_BOOTTIME, 0 for none, from its standard input. Needs the standard library
and pynvml only.
"""

import argparse
import os
import select
import sys
import time
from pathlib import Path
from typing import Final

from powerhall_agent.capper.instance_lock import GPU_LOCK
from powerhall_agent.capper.safe_caps import set_safe_caps, simulated_lock
from powerhall_agent.capper.safe_config import found_limits, read_safe_config

__all__ = ["Ends", "main"]

GRACE_S: Final = 0.5
_TRIES, _AGAIN_S, _WITHIN_S = 3, 2.0, 1.5
_TURN_S: Final = 0.1


class Ends:
    """The end of the lease in force as the capper told it, and how often it has been acted on."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._rest = b""
        self._tries = 0
        self._next_s = 0.0

    def feed(self, data: bytes) -> None:
        """Take what the capper wrote; the newest whole line counts."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._until_s, self._tries, self._next_s = float(line), 0, 0.0

    def is_due(self, boot_s: float) -> bool:
        """Return whether the safe caps must be set now; each end is acted on a few times."""
        is_over = self._until_s > 0.0 and boot_s >= self._until_s + GRACE_S
        if not is_over or self._tries >= _TRIES or boot_s < self._next_s:
            return False
        self._tries, self._next_s = self._tries + 1, boot_s + _AGAIN_S
        return True


def main() -> int:
    """Watch until the capper is gone."""
    parser = argparse.ArgumentParser(prog="powerhall_agent.capper.guard", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="settings of the capper")
    parser.add_argument("--state-file", type=Path, metavar="FILE", help="state file of simulated GPUs")
    args = parser.parse_args()
    if args.state_file:
        from powerhall_agent.simulate.install import install
        from powerhall_agent.simulate.state import StateFile

        install([StateFile.open(args.state_file)])
    config = read_safe_config(args.config, args.state_file)
    found = found_limits(config, simulated_lock(args.state_file) if args.state_file else GPU_LOCK)
    ends = Ends()
    while True:
        if select.select([0], [], [], _TURN_S)[0]:
            data = os.read(0, 4096)
            if not data:
                return 0
            ends.feed(data)
        if ends.is_due(time.clock_gettime(time.CLOCK_BOOTTIME)):
            try:
                troubles = set_safe_caps(config.limit_w, found, _WITHIN_S)
            except RuntimeError as error:  # no more threads: those of hung GPUs are many
                troubles = {-1: str(error)}
            text = "; ".join(f"GPU {gpu}: {trouble}" for gpu, trouble in sorted(troubles.items())) or "done"
            sys.stderr.write(f"powerhall-capper: the capper stands still, the guard sets the safe caps: {text}\n")
            sys.stderr.flush()


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # threads that hang in the driver are not waited for
