"""Compares the safe limit of capper.toml with what the GPUs of this host accept, and changes nothing."""

from powerhall_agent.capper.gpu_calls import TOLERANCE_W, Range, safe_limit_w
from powerhall_agent.capper.limiter import NvmlLimiter

__all__ = ["check_safe_limit", "compared"]


def check_safe_limit(limit_w: float) -> tuple[list[str], bool]:
    """Ask the GPUs; return lines for a person, and whether the capper takes the limit. Raises DriverGone."""
    limiter = NvmlLimiter()
    try:
        return compared(limit_w, limiter.ranges(), limiter.troubles())
    finally:
        limiter.close()


def compared(limit_w: float, spans: dict[int, Range], troubles: dict[int, str]) -> tuple[list[str], bool]:
    """Return a line per GPU, and whether one of them accepts so much: the rest get what they accept."""
    lines = [f"GPU {gpu}: does not answer: {text}" for gpu, text in sorted(troubles.items())]
    for gpu, span in sorted(spans.items()):
        held_w = safe_limit_w(limit_w, span)
        word = "fits" if abs(held_w - limit_w) <= TOLERANCE_W else f"is brought to {held_w:.0f} W"
        lines.append(f"GPU {gpu}: accepts {span.min_w:.0f} to {span.max_w:.0f} W; {limit_w:.0f} W {word}")
    is_taken = any(limit_w <= span.max_w + TOLERANCE_W for span in spans.values())
    if not spans:
        lines.append("no GPU answers: nothing to compare with")
    elif not is_taken:
        lines.append(
            f"safe_gpu_power_limit: {limit_w:.0f} W: is above what any GPU accepts: the capper would hold the lowest "
            "limits and refuse leases"
        )
    return lines, is_taken
