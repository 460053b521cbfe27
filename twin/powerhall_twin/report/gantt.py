"""Jobs as blocks on lanes: one lane per GPU, nodes in the order of halls, rows and racks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from powerhall.hostlist import expand
from powerhall.plan.plan import Plan
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_twin.demo.site_run import Running

__all__ = ["Block", "history_blocks", "lane_of_nodes", "plan_blocks"]


@dataclass(frozen=True, slots=True)
class Block:
    """A job, or a part of it, on `lanes` lanes that lie side by side."""

    mode: str
    lane: int
    lanes: int
    start_s: float
    end_s: float
    text: str

    def until(self, end_s: float) -> "Block":
        """Return the block, cut at a time."""
        return replace(self, end_s=min(self.end_s, end_s))


def lane_of_nodes(site: Site) -> tuple[dict[str, int], int]:
    """Return the first lane of every node, and the number of lanes."""
    first: dict[str, int] = {}
    lane = 0
    for rack in site.racks():
        for node in rack.nodes:
            first[node] = lane
            lane += site.node_types[rack.node_type].gpus
    return first, lane


def _together(lanes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of the runs of neighbouring lanes."""
    start = last = -2
    for lane in sorted(lanes):
        if lane != last + 1:
            if last >= 0:
                yield start, last - start + 1
            start = lane
        last = lane
    if last >= 0:
        yield start, last - start + 1


def history_blocks(site: Site, history: Sequence[Running]) -> list[Block]:
    """Return what ran, stretch by stretch."""
    first, _ = lane_of_nodes(site)
    found = []
    for entry in history:
        lanes = (first[part.node] + gpu for part in entry.slices for gpu in part.gpus)
        text = f"<b>{entry.job_id}</b><br>{entry.gpus} GPUs in {entry.hall}, {entry.mode}"
        found += [Block(entry.mode, low, count, entry.start_s, entry.end_s, text) for low, count in _together(lanes)]
    return found


def plan_blocks(plan: Plan) -> list[Block]:
    """Return what a plan foresees; jobs that share a node are put on its lanes in the order of their starts."""
    site = plan.snapshot.site
    first, total = lane_of_nodes(site)
    free_at = [0] * total
    index = SiteIndex.of(site)
    found = []
    for entry in sorted(plan.assignments, key=lambda a: (a.start_s, not a.running, a.job_id)):
        lanes: list[int] = []
        for place in entry.placements:
            for node in expand(place.nodes):
                own = range(first[node], first[node] + index.node_type(node).gpus)
                lanes += [lane for lane in own if free_at[lane] <= entry.start_s][: place.gpus_per_node]
        for lane in lanes:
            free_at[lane] = entry.end_s
        kw = entry.gpus * entry.gpu_power_w / 1e3
        text = f"<b>{entry.job_id}</b><br>{entry.gpus} GPUs in {entry.hall}, {entry.mode}, {kw:.0f} kW"
        found += [Block(entry.mode, low, count, entry.start_s, entry.end_s, text) for low, count in _together(lanes)]
    return found
