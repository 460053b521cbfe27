"""Jobs as blocks of a Gantt chart: one row per GPU, nodes in the order of halls, rows and racks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from powerhall.hostlist import expand
from powerhall.plan.plan import Plan
from powerhall.report.html_page import chart_text
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_twin.demo.site_run import JobStretch

__all__ = ["Block", "gantt_rows", "history_blocks", "plan_blocks"]


@dataclass(frozen=True, slots=True)
class Block:
    """A job, or a part of it, on `rows` adjacent rows from `row` on."""

    mode: str
    row: int
    rows: int
    start_s: float
    end_s: float
    text: str

    def until(self, end_s: float) -> "Block":
        """Return the block, cut at a time."""
        return replace(self, end_s=min(self.end_s, end_s))


def gantt_rows(site: Site) -> tuple[dict[str, int], int]:
    """Return the first row of every node, and the number of rows."""
    first: dict[str, int] = {}
    row = 0
    for rack in site.racks():
        for node in rack.nodes:
            first[node] = row
            row += site.node_types[rack.node_type].gpus
    return first, row


def _adjacent(rows: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield first row and number of every run of adjacent rows."""
    start = last = -2
    for row in sorted(rows):
        if row != last + 1:
            if last >= 0:
                yield start, last - start + 1
            start = row
        last = row
    if last >= 0:
        yield start, last - start + 1


def _label(job_id: str, gpus: int, hall: str, mode: str) -> str:
    return f"<b>{chart_text(job_id)}</b><br>{gpus} GPUs in {chart_text(hall)}, {chart_text(mode)}"


def history_blocks(site: Site, history: Sequence[JobStretch]) -> list[Block]:
    """Return a block for every stretch of every job."""
    first, _ = gantt_rows(site)
    found = []
    for entry in history:
        rows = (first[part.node] + gpu for part in entry.slices for gpu in part.gpus)
        text = _label(entry.job_id, entry.gpus, entry.hall, entry.mode)
        found += [Block(entry.mode, low, count, entry.start_s, entry.end_s, text) for low, count in _adjacent(rows)]
    return found


def plan_blocks(plan: Plan) -> list[Block]:
    """Return the planned jobs; those that share a node take its rows in the order of their starts."""
    site = plan.snapshot.site
    first, total = gantt_rows(site)
    free_at = [0] * total
    index = SiteIndex.of(site)
    found = []
    for entry in sorted(plan.assignments, key=lambda a: (a.start_s, not a.running, a.job_id)):
        rows: list[int] = []
        for place in entry.placements:
            for node in expand(place.nodes):
                own = range(first[node], first[node] + index.node_type(node).gpus)
                rows += [row for row in own if free_at[row] <= entry.start_s][: place.gpus_per_node]
        for row in rows:
            free_at[row] = entry.end_s
        kw = entry.gpus * entry.gpu_power_w / 1e3
        text = f"{_label(entry.job_id, entry.gpus, entry.hall, entry.mode)}, {kw:.0f} kW"
        found += [Block(entry.mode, low, count, entry.start_s, entry.end_s, text) for low, count in _adjacent(rows)]
    return found
