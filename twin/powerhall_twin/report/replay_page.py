"""The report of a replay: one HTML page that needs no network, and results.json beside it."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from powerhall.report.html_page import render_page
from powerhall.report.page_parts import Table, Tile
from powerhall.runtime.files import replace_file
from powerhall.site.topology import Site
from powerhall_twin.engine.outcome import JobOutcome, SimulationOutcome
from powerhall_twin.replay.figures import ReplayResults
from powerhall_twin.report.page import HeadroomRow, TableSection
from powerhall_twin.report.replay_charts import replay_charts
from powerhall_twin.report.replay_tables import figure_tables, title_of

__all__ = ["replay_html", "write_replay"]

_MOST_HEADROOMS = 12


def write_replay(results: ReplayResults, outcomes: Sequence[SimulationOutcome], site: Site, out: Path) -> None:
    """Write results.json and report.html, each in one step."""
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "results.json", msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    replace_file(out / "report.html", replay_html(results, outcomes[0].job_outcomes, site).encode())


def replay_html(results: ReplayResults, jobs: Sequence[JobOutcome], site: Site) -> str:
    """Return the page; `jobs` are those of the first policy."""
    over = [p for p in results.policies if p.over_budget_s > 0]
    hours = (results.end_s - results.start_s) / 3600
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(results.start_s))
    notes = f" {len(results.notes)} notes stand in the table below." if results.notes else ""
    modes = tuple(dict.fromkeys(mode.name for kind in site.node_types.values() for mode in kind.modes))
    figures, sections = replay_charts(results, jobs, modes)
    work, *more = figure_tables(results.policies)
    return render_page(
        "powerhall_twin.report",
        "demo_report.html",
        title=f"Powerhall: replay at site {results.site}",
        figures=figures,
        heading=f"Replay at site {results.site}",
        lead=f"{hours:g} h from {began} UTC, the same jobs, budgets, weather and prices under each policy.{notes}",
        ok=not over,
        verdict=(
            "every budget held under every policy"
            if not over
            else "a budget did not hold: " + ", ".join(f"{p.name} {p.over_budget_s:,.0f} s" for p in over)
        ),
        tiles=_tiles(results),
        tables=[work, *more],
        charts=sections,
        waiting=_notes(results),
        policies=None,
        headrooms={
            "title": "Least headroom",
            "note": f"The tightest zones and plants under {title_of(results.policies[0].name)}.",
            "style": "",
            "rows": _headrooms(results),
        },
        footer="Powerhall twin. Power draw comes from the physics of the GPUs under their limits, not from the plan.",
    )


def _tiles(results: ReplayResults) -> list[Tile]:
    by_work = sorted(results.policies, key=lambda p: p.weighted_work)
    best, least = by_work[-1], by_work[0]
    saving = max(results.policies, key=lambda p: p.work_per_mwh)
    more = best.weighted_work / least.weighted_work - 1 if least.weighted_work > 0 else 0.0
    return [
        Tile("Most weighted work", best.name, f"{best.weighted_work / 3600:,.0f} GPU h", "--power"),
        Tile("More than the least", f"{more:+.1%}", f"than {least.name}", "--power"),
        Tile("Most work per MWh", saving.name, f"{saving.work_per_mwh:,.1f} weighted GPU h", "--cooling"),
        Tile("Jobs", f"{best.jobs_done} done", f"of {best.jobs} under {best.name}", "--power"),
        Tile("Peak power", f"{max(p.peak_power_w for p in results.policies) / 1e3:,.0f} kW", "of any", "--budget"),
        Tile("Over budget", f"{max(p.over_budget_s for p in results.policies):,.0f} s", "at most", "--budget"),
    ]


def _notes(results: ReplayResults) -> TableSection | None:
    if not results.notes:
        return None
    return TableSection("Notes on the inputs", Table(("note",), tuple((note,) for note in results.notes)))


def _headrooms(results: ReplayResults) -> list[HeadroomRow]:
    found = sorted(results.headroom[results.policies[0].name].items(), key=lambda item: item[1])
    return [
        HeadroomRow(zone, f"{share:.1%}", round(max(2.0, min(110.0, 220 * share))), share < 0.02, "")
        for zone, share in found[:_MOST_HEADROOMS]
    ]
