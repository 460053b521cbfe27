"""Where the last plan put jobs: the nodes on which each is at home with one option and start."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from powerhall_optimizer.placement.node_occupancy import Split

__all__ = ["Homes"]


@dataclass(slots=True)
class Homes:
    """Homes of jobs, and their nodes as placed; no homes where the placement starts from no plan."""

    placed: Mapping[int, Split]
    of: dict[int, tuple[int, int, Split]] = field(default_factory=dict)
    """Option and start of a job with the nodes that it takes then, if they are free."""
    gain: int = 0
    """Value that leaving these nodes must gain."""
    firm: Set[int] = frozenset()
    """Jobs that nothing but a limit moves from these nodes."""

    def has(self, job: int) -> bool:
        """Whether a job is placed on the nodes on which it is at home."""
        return job in self.placed and job in self.of and sorted(self.placed[job]) == sorted(self.of[job][2])

    def hold(self, job: int) -> bool:
        """Whether a job is at home and moves for nobody's gain."""
        return job in self.firm and self.has(job)

    def nodes(self, job: int, option: int, start: int) -> Split | None:
        """Return the nodes on which a job is at home with this option and start."""
        home = self.of.get(job)
        return None if home is None or home[:2] != (option, start) else home[2]
