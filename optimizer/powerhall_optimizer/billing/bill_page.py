"""A bill as one self-contained HTML page: figures of the meter, lines as bars and table, gaps and notes."""

from datetime import tzinfo

from powerhall.report.html_page import chart_text, render_page
from powerhall.report.page_parts import Table, Tile
from powerhall_optimizer.billing.allocation import Amounts
from powerhall_optimizer.billing.bill import Bill, Level
from powerhall_optimizer.billing.bill_output import HEADS, RESTS, TEXTS, bill_cells, gap_lines, moment_text, peak_lines
from powerhall_optimizer.report.page import Folded

__all__ = ["bill_html"]

_BARS = 20
_SHOWN = 50


def bill_html(bill: Bill, level: Level, zone: tzinfo | None) -> str:
    """Return the page; it loads nothing from a network."""
    lines = list(bill.grouped(level).items())
    rests = [(TEXTS[what], bill.rest(what)) for what in RESTS]
    meter = bill.rest("meter")
    head, numbers = (level, *HEADS), frozenset(range(1, len(HEADS) + 1))
    rows = [(name, *bill_cells(amounts, meter)) for name, amounts in [*lines, *rests, (TEXTS["meter"], meter)]]
    shown = Table(head, (*rows[: min(_SHOWN, len(lines))], *rows[len(lines) :]), numbers)
    more = Table(head, tuple(rows[_SHOWN : len(lines)]), numbers) if len(lines) > _SHOWN else None
    sections: list[tuple[str, str, Folded | None]] = [
        (f"Energy at the meter by {level}", "energy", None),
        ("The bill", "lines", Folded(shown, f"{len(lines) - _SHOWN} more", more)),
    ]
    told = [*peak_lines(bill, zone), *gap_lines(bill, zone), *bill.notes]
    if told:
        sections.append(
            (
                "Demand charges, gaps and notes",
                "notes",
                Folded(Table(("what else is to be said",), tuple((t,) for t in told))),
            )
        )
    return render_page(
        "powerhall_optimizer.report",
        "plan_report.html",
        title=f"Bill of {bill.site}",
        subtitle=f"{moment_text(bill.start_s, zone)} to {moment_text(bill.end_s, zone)}, by {level}",
        tiles=_tiles(bill, meter),
        sections=sections,
        figures={"energy": _bars([*lines[:_BARS], *rests])},
    )


def _tiles(bill: Bill, meter: Amounts) -> list[Tile]:
    figures = bill_cells(meter, meter)
    share = bill.jobs.energy_j / meter.energy_j if meter.energy_j else 0.0
    hours = sum(gap.hours for gap in bill.gaps)
    return [
        Tile("at the meter", f"{meter.energy_j / 3.6e9:,.2f} MWh"),
        Tile("billed to jobs", f"{share:.1%}"),
        Tile("PUE", figures[4]),
        Tile("cost", f"{figures[5]} USD"),
        Tile("CO2", f"{figures[6]} kg"),
        Tile("water", f"{meter.water_l / 1000:,.1f} m³"),
        Tile("hall hours without a meter", f"{hours:,.1f}"),
    ]


def _bars(lines: list[tuple[str, Amounts]]) -> dict[str, object]:
    """Return the chart of energies, IT and what comes on top, the largest line above."""
    names = [chart_text(name) for name, _ in lines][::-1]
    it = [amounts.it_j / 3.6e6 for _, amounts in lines][::-1]
    top = [(amounts.energy_j - amounts.it_j) / 3.6e6 for _, amounts in lines][::-1]
    parts = (("IT", it, "#2f6fd4"), ("cooling and losses", top, "#2cb5c0"))
    data = [
        {"type": "bar", "orientation": "h", "y": names, "x": kwh, "name": name, "marker": {"color": colour}}
        for name, kwh, colour in parts
    ]
    layout = {
        "barmode": "stack",
        "height": 120 + 26 * len(lines),
        "margin": {"l": 10, "r": 10, "t": 40, "b": 40},
        "xaxis": {"title": {"text": "kWh"}},
        "yaxis": {"automargin": True, "type": "category"},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "traceorder": "normal"},
    }
    return {"data": data, "layout": layout}
