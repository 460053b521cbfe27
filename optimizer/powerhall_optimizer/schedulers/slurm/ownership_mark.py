"""Ownership annotation on a job in Slurm's AdminComment: values written by Powerhall, and pending writes.

Invariants: the mark is written before its fields (`pending`, with old and new values) and once more after they were
verified. So a run that is killed at any point leaves a mark from which the next run finds the values that Powerhall
wrote. A value that is neither the old nor the new one was changed by somebody else, and Powerhall leaves it from then
on. Users cannot write AdminComment; operators can, and clearing it makes Powerhall manage the job as a new one.

Form: `powerhall:key=value;key=value` without blanks, then ` | ` and what an administrator had written before.
"""

import re
from dataclasses import dataclass, field

__all__ = ["FIELDS", "OwnershipMark", "one_word", "parse_mark"]

FIELDS = ("start", "prio", "nodes", "feat", "lic", "hold")
"""start: s since the epoch, 0 for at once; prio; nodes and feat: what is requested; lic: units; hold: 1 or 0."""
_PREFIX = "powerhall:"


@dataclass(frozen=True, slots=True)
class OwnershipMark:
    """`values` and `old` by field; `begin_s` is the earliest start that the user asked for; `restarts` at the time.

    `mode` and `power_w` (per GPU) are the power level for the job's prolog.
    """

    values: dict[str, str] = field(default_factory=dict)
    old: dict[str, str] = field(default_factory=dict)
    pending: bool = False
    begin_s: int = 0
    restarts: int = 0
    mode: str = ""
    power_w: int = 0
    rest: str = ""

    def owns(self, name: str, value: str) -> bool:
        """Return whether Powerhall wrote a field's present value, or was about to replace it."""
        if name not in self.values:
            return False
        return value == self.values[name] or (self.pending and value == self.old.get(name))

    def encode(self) -> str:
        """Return the AdminComment."""
        parts = [f"{name}={value}" for name, value in sorted(self.values.items())]
        if self.pending:
            parts += [f"old.{name}={value}" for name, value in sorted(self.old.items())] + ["pending=1"]
        for name, number in (("begin", self.begin_s), ("restarts", self.restarts), ("gpu_power_w", self.power_w)):
            if number:
                parts.append(f"{name}={number}")
        if self.mode:
            parts.append(f"mode={self.mode}")
        return _PREFIX + ";".join(parts) + (f" | {self.rest}" if self.rest else "")


def parse_mark(text: str) -> OwnershipMark | None:
    """Return the mark in an AdminComment; None where there is none."""
    if not text.startswith(_PREFIX):
        return None
    body, _, rest = text.removeprefix(_PREFIX).partition(" | ")
    pairs = dict(part.split("=", 1) for part in body.split(";") if "=" in part)

    def number(key: str) -> int:
        value = pairs.get(key, "")
        return int(value) if value.isdigit() else 0

    return OwnershipMark(
        values={name: pairs[name] for name in FIELDS if name in pairs},
        old={name: pairs[f"old.{name}"] for name in FIELDS if f"old.{name}" in pairs},
        pending=pairs.get("pending") == "1",
        begin_s=number("begin"),
        restarts=number("restarts"),
        mode=pairs.get("mode", ""),
        power_w=number("gpu_power_w"),
        rest=rest,
    )


def one_word(mode: str) -> str:
    """Return a mode's name as one word, as a mark and a job's environment need it."""
    return re.sub(r"[^\w.+:-]", "_", mode)
