"""Why placement moved a job or left it out. Texts are in `planning.texts`."""

from dataclasses import dataclass
from enum import Enum, auto

from powerhall.plan.plan import WaitCode

__all__ = ["PlacementCause", "PlacementReason"]


class PlacementCause(Enum):
    """The limit that kept a job from its place."""

    NO_NODES = auto()
    """No row or rack of `hall` has the nodes for `gpus` (on one node where `one_node`)."""
    NO_BLOCK = auto()
    """No `level` of `hall` has `nodes` free nodes together, for each of `parts` parts."""
    RAMP = auto()
    """The ramp limit of `site`, up or down, at `time_s`."""
    NO_MODE = auto()
    """The nodes of a running job take it in no mode."""


@dataclass(frozen=True, slots=True)
class PlacementReason:
    """The cause with the parameters of its text."""

    cause: PlacementCause
    hall: str = ""
    gpus: int = 0
    one_node: bool = False
    site: str = ""
    rate_w_per_s: float = 0.0
    is_up: bool = False
    time_s: int = 0
    level: str = ""
    parts: int = 0
    nodes: int = 0

    @property
    def code(self) -> WaitCode:
        """The code of a job that waits for this reason."""
        codes = {PlacementCause.RAMP: WaitCode.RAMP, PlacementCause.NO_BLOCK: WaitCode.TOPOLOGY}
        return codes.get(self.cause, WaitCode.PLACEMENT)
