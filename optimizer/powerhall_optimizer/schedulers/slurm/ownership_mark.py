"""Ownership annotation on a job in Slurm's AdminComment: values written by Powerhall, and pending writes.

Invariants: the mark is written before its fields (`pending`, with old and new values) and once more after they were
verified. So a run that is killed at any point leaves a mark from which the next run finds the values that Powerhall
wrote. A value that is neither the old nor the new one was changed by somebody else, and Powerhall leaves it from then
on. Users cannot write AdminComment; operators can, and clearing it makes Powerhall manage the job as a new one.

Form: `powerhall:key=value;key=value` without blanks, then ` | ` and what an administrator had written before.
"""

import re
from dataclasses import dataclass, field

from powerhall.hostlist import compress, expand
from powerhall.runtime.decode.numbers_in import digits

__all__ = ["FIELDS", "OwnershipMark", "canonical", "one_word", "parse_mark"]

FIELDS = ("start", "prio", "nodes", "feat", "lic", "hold")
"""start: s since the epoch, 0 for at once; prio; nodes and feat: what is requested; lic: units; hold: 1 or 0."""
_PREFIX = "powerhall:"


@dataclass(frozen=True, slots=True)
class OwnershipMark:
    """`values` and `old` by field; `begin_s` is the earliest start that the user asked for; `restarts` at the time.

    `mode` and `power_w` (per GPU) are the power level for the job's prolog. `at_s` is the time of the plan that was
    written, `site` its site. `charge` are the units that the job was submitted with. With `no_pin` it gets no nodes any
    more: Slurm refused those that it had.
    """

    values: dict[str, str] = field(default_factory=dict)
    old: dict[str, str] = field(default_factory=dict)
    pending: bool = False
    begin_s: int = 0
    restarts: int = 0
    mode: str = ""
    power_w: int = 0
    rest: str = ""
    at_s: int = 0
    site: str = ""
    no_pin: bool = False
    charge: int = 0

    def owns(self, name: str, value: str) -> bool:
        """Return whether Powerhall wrote a field's present value, or was about to replace it."""
        if name not in self.values:
            return False
        return value == self.values[name] or (self.pending and value == self.old.get(name))

    @property
    def is_tied(self) -> bool:
        """Whether the job has what must not outlive its plan: nodes, a feature, or fewer units than at submission."""
        units = digits(self.values.get("lic", ""))
        return bool({"nodes", "feat"} & self.values.keys()) or (units is not None and units < self.charge)

    def encode(self) -> str:
        """Return the AdminComment."""
        parts = [f"{name}={value}" for name, value in sorted(self.values.items())]
        if self.pending:
            parts += [f"old.{name}={value}" for name, value in sorted(self.old.items())] + ["pending=1"]
        numbers = {"begin": self.begin_s, "restarts": self.restarts, "gpu_power_w": self.power_w, "at": self.at_s}
        numbers |= {"charge": self.charge}
        parts += [f"{name}={number}" for name, number in numbers.items() if number]
        parts += [f"{name}={word}" for name, word in (("mode", self.mode), ("site", self.site)) if word]
        if self.no_pin:
            parts.append("nopin=1")
        return _PREFIX + ";".join(parts) + (f" | {self.rest}" if self.rest else "")


def parse_mark(text: str) -> OwnershipMark | None:
    """Return the mark in an AdminComment; None where there is none."""
    if not text.startswith(_PREFIX):
        return None
    body, _, rest = text.removeprefix(_PREFIX).partition(" | ")
    pairs = dict(part.split("=", 1) for part in body.split(";") if "=" in part)

    def number(key: str) -> int:
        return digits(pairs.get(key, "")) or 0

    return OwnershipMark(
        values={name: pairs[name] for name in FIELDS if name in pairs},
        old={name: pairs[f"old.{name}"] for name in FIELDS if f"old.{name}" in pairs},
        pending=pairs.get("pending") == "1",
        begin_s=number("begin"),
        restarts=number("restarts"),
        mode=pairs.get("mode", ""),
        power_w=number("gpu_power_w"),
        rest=rest,
        at_s=number("at"),
        site=pairs.get("site", ""),
        no_pin=pairs.get("nopin") == "1",
        charge=number("charge"),
    )


def canonical(nodes: str) -> str:
    """Return a host list in one form, whatever order and grouping it came in; one that is not understood as it is."""
    try:
        return compress(sorted(set(expand(nodes))))
    except ValueError:
        return nodes


def one_word(mode: str) -> str:
    """Return a mode's name as one word, as a mark and a job's environment need it."""
    return re.sub(r"[^\w.+:-]", "_", mode)
