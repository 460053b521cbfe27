"""Sets, reads back and restores the power limit of every GPU of this host: `python -m powerhall_agent.capper.check`.

A part of `make gpu-check`. Without permission to set limits it reports that and changes nothing.
"""

import argparse
import sys

from powerhall.lease import GpuCap
from powerhall.runtime.decode.numbers_in import count_of
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall_agent.capper.limiter import CapsNotHeld, DriverGone, NvmlLimiter

__all__ = ["main"]


def _trial(limiter: NvmlLimiter) -> tuple[GpuCap, ...]:
    """Return a limit one tenth lower for each GPU, within what it accepts."""
    ranges = limiter.ranges()
    return tuple(
        GpuCap(cap.gpu, max(ranges[cap.gpu].min_w, round(0.9 * (cap.power_limit_w or 0.0))))
        for cap in limiter.read()
        if cap.gpu in ranges
    )


def main() -> int:
    """Run the check and return an exit code: 1 when a limit does not hold or does not come back."""
    parser = argparse.ArgumentParser(prog="powerhall_agent.capper.check", description=__doc__)
    parser.add_argument(
        "--simulate", type=count_of(0, 4096), metavar="GPUS", default=0, help="simulated GPUs, to try the check"
    )
    simulate = parser.parse_args().simulate
    if simulate:
        from powerhall_agent.simulate.install import install
        from powerhall_agent.simulate.state import StateFile

        install([StateFile.create(gpus=simulate)])
    try:
        limiter = NvmlLimiter()
    except DriverGone as error:
        sys.stderr.write(f"capper check: no driver: {error}\n")
        return EXIT_REFUSED
    found = limiter.read()
    try:
        limiter.apply(_trial(limiter))
        changed = limiter.read()
    except PowerhallError as error:
        sys.stdout.write(f"limits cannot be set here: {error}\n")
        return EXIT_OK if isinstance(error, CapsNotHeld) and error.not_allowed else EXIT_REFUSED
    finally:
        if limiter.read() != found:
            limiter.apply(found)
    for before, during, after in zip(found, changed, limiter.read(), strict=True):
        limits = " -> ".join(f"{cap.power_limit_w:.0f} W" for cap in (before, during, after))
        sys.stdout.write(f"GPU {before.gpu}: limit {limits}\n")
    return EXIT_OK if limiter.read() == found else EXIT_REFUSED


if __name__ == "__main__":
    raise SystemExit(main())
