"""Why a job has no option: it can run nowhere within the horizon. Texts are in `planning.texts`."""

from dataclasses import dataclass
from enum import Enum, auto

from powerhall.plan.plan import WaitCode

__all__ = ["NoOption", "NoOptionCause"]


class NoOptionCause(Enum):
    """The condition that rules a job out."""

    RUNS_ELSEWHERE = auto()
    """It runs at `job_sites[0]`, not at `site`."""
    NOT_RESIDENT = auto()
    """It may run only at `job_sites`, not at `site`."""
    NO_NODE_TYPE = auto()
    """No hall has the node types that it may use."""
    TOO_LARGE = auto()
    """It needs `gpus` in one hall; the largest has `most_gpus`."""
    NO_BLOCK = auto()
    """It needs `nodes` (in parts of `part_nodes`, where not 0) in a block of `level`; the largest has `most_nodes`."""
    NO_PARTS = auto()
    """No node type that it may use has the `share` of a GPU that it asks for."""
    AFTER_HORIZON = auto()
    """It may start only after the end of the horizon."""
    BUDGET = auto()
    """Its tenant's budget over a period leaves no room: `why`."""
    HELD = auto()
    """Nothing may start now: `why`."""
    LATE = auto()
    """Whatever its start and mode, it ends after its deadline at `time_s`."""
    NO_NODES_IN_HALL = auto()
    """It runs in `hall`, which has no nodes of its type."""
    AT_NO_SITE = auto()
    """Every site rules it out: `by_site`."""


_CODES = {
    NoOptionCause.TOO_LARGE: WaitCode.TOO_LARGE,
    NoOptionCause.NO_BLOCK: WaitCode.TOPOLOGY,
    NoOptionCause.AFTER_HORIZON: WaitCode.WINDOW,
    NoOptionCause.LATE: WaitCode.DEADLINE,
    NoOptionCause.HELD: WaitCode.HELD,
    NoOptionCause.BUDGET: WaitCode.BUDGET,
}


@dataclass(frozen=True, slots=True)
class NoOption:
    """The cause with the parameters of its text."""

    cause: NoOptionCause
    site: str = ""
    job_sites: tuple[str, ...] = ()
    hall: str = ""
    gpus: int = 0
    most_gpus: int = 0
    time_s: float = 0.0
    why: str = ""
    by_site: tuple[tuple[str, "NoOption"], ...] = ()
    level: str = ""
    nodes: int = 0
    part_nodes: int = 0
    most_nodes: int = 0
    share: str = ""

    @property
    def code(self) -> WaitCode:
        """The code of the waiting job; of several sites the first that is not mere ineligibility."""
        codes = [part.code for _, part in self.by_site if part.code is not WaitCode.INELIGIBLE]
        return codes[0] if codes else _CODES.get(self.cause, WaitCode.INELIGIBLE)
