"""A bill as text, CSV and JSON. Energies are in kWh, CO2 in kg, water in l, cost in USD."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

from powerhall_optimizer.billing.allocation import Amounts
from powerhall_optimizer.billing.bill import Bill, Level

__all__ = [
    "HEADS",
    "RESTS",
    "TEXTS",
    "bill_cells",
    "bill_csv",
    "bill_data",
    "bill_text",
    "gap_lines",
    "moment_text",
    "peak_lines",
]

Json = dict[str, object]
RESTS: Final = ("idle", "unallocated", "assumed")
TEXTS: Final = {
    "idle": "idle GPUs",
    "unallocated": "unallocated",
    "assumed": "assumed (silent nodes)",
    "meter": "meter",
}
HEADS: Final = ("GPU h", "GPU kWh", "IT kWh", "kWh", "PUE", "USD", "kg CO2", "water l", "share")


def _figures(amounts: Amounts, meter: Amounts) -> dict[str, float | None]:
    """Return the figures of a line; None where the period has no price or carbon intensity at all."""
    energy, it = amounts.energy_j / 3.6e6, amounts.it_j / 3.6e6
    return {
        "gpu_h": round(amounts.gpu_s / 3600, 6),
        "gpu_kwh": round(amounts.board_j / 3.6e6, 6),
        "it_kwh": round(it, 6),
        "overhead_kwh": round(energy - it, 6),
        "energy_kwh": round(energy, 6),
        "pue": round(energy / it, 6) if it > 0 else None,
        "cost_usd": None if meter.unpriced_j >= meter.energy_j else round(amounts.cost_usd, 6),
        "co2_kg": None if meter.uncounted_j >= meter.energy_j else round(amounts.co2_g / 1000, 6),
        "water_l": round(amounts.water_l, 6),
        "share": round(amounts.energy_j / meter.energy_j, 8) if meter.energy_j else None,
        "unpriced_kwh": round(amounts.unpriced_j / 3.6e6, 6),
        "uncounted_kwh": round(amounts.uncounted_j / 3.6e6, 6),
        "unmetered_kwh": round(amounts.unmetered_j / 3.6e6, 6),
    }


def _lines(bill: Bill, level: Level) -> Iterator[tuple[str, str, Amounts]]:
    """Yield kind, name and amounts of every line, the meter last."""
    for name, amounts in bill.grouped(level).items():
        yield level, name, amounts
    for what in RESTS:
        yield what, "", bill.rest(what)
    yield "meter", "", bill.rest("meter")


def _owners(bill: Bill, level: Level) -> dict[str, Json]:
    """Return who stands behind the jobs of a bill by job."""
    if level != "job":
        return {}
    return {
        line.job: {"user": line.user, "project": line.owner.project, "tenant": line.owner.tenant} for line in bill.lines
    }


def bill_data(bill: Bill, level: Level, zone: tzinfo | None) -> Json:
    """Return the bill as JSON has it."""
    meter, owners = bill.rest("meter"), _owners(bill, level)
    found: Json = {
        "site": bill.site,
        "start": moment_text(bill.start_s, zone),
        "end": moment_text(bill.end_s, zone),
        "by": level,
        "lines": [
            {level: name, **owners.get(name, {}), **_figures(amounts, meter)}
            for name, amounts in bill.grouped(level).items()
        ],
    }
    found |= {what: _figures(bill.rest(what), meter) for what in (*RESTS, "meter")}
    found["halls"] = [
        {"hall": hall.hall} | {what: _figures(getattr(hall, what), hall.meter) for what in (*RESTS, "meter")}
        for hall in bill.halls
    ]
    found["gaps"] = [
        {
            "hall": gap.hall,
            "start": moment_text(gap.start_s, zone),
            "end": moment_text(gap.end_s, zone),
            "hours": round(gap.hours, 6),
            "missing": gap.missing,
        }
        for gap in bill.gaps
    ]
    found["demand_charges"] = [
        {
            "charge": peak.charge.name,
            "month": peak.month,
            "peak_kw": round(peak.power_w / 1000, 6),
            "at": None if peak.at_s is None else moment_text(peak.at_s, zone),
            "cost_usd": round(peak.cost_usd, 6),
            "missing_hours": round(peak.missing_h, 6),
        }
        for peak in bill.peaks
    ]
    return found | {"notes": list(bill.notes)}


def peak_lines(bill: Bill, zone: tzinfo | None) -> list[str]:
    """Return a line for each demand charge and month; charges are on top of the cost of energy."""
    lines = []
    for peak in bill.peaks:
        at = "not known" if peak.at_s is None else f"{peak.power_w / 1000:,.1f} kW at {moment_text(peak.at_s, zone)}"
        missing = f"; {peak.missing_h:.1f} h that count are not known" if peak.missing_h else ""
        lines.append(f"demand charge {peak.charge.name}, {peak.month}: {at}, {peak.cost_usd:,.2f} USD{missing}")
    return lines


def bill_csv(bill: Bill, level: Level) -> str:
    """Return the bill as CSV: a line each, then what no job is billed for, then the meter, which is their sum."""
    meter, owners = bill.rest("meter"), _owners(bill, level)
    text = io.StringIO()
    heads = ["kind", "name", *(["user", "project", "tenant"] if level == "job" else []), *_figures(meter, meter)]
    writer = csv.DictWriter(text, heads, lineterminator="\n", restval="")
    writer.writeheader()
    for kind, name, amounts in _lines(bill, level):
        figures = {key: "" if value is None else value for key, value in _figures(amounts, meter).items()}
        writer.writerow({"kind": kind, "name": name} | (owners.get(name, {}) if kind == "job" else {}) | figures)
    return text.getvalue()


def bill_text(bill: Bill, level: Level, zone: tzinfo | None) -> str:
    """Return the bill as a table for people, with its gaps and notes."""
    meter = bill.rest("meter")
    rows: list[tuple[str, ...]] = [(level, *HEADS)]
    rows += [
        (name if kind == level else TEXTS[kind], *bill_cells(amounts, meter))
        for kind, name, amounts in _lines(bill, level)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    period = f"{moment_text(bill.start_s, zone)} to {moment_text(bill.end_s, zone)}"
    lines = [f"{bill.site}, {period}, by {level}"]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "".join(
        f"{line}\n"
        for line in [*lines, *peak_lines(bill, zone), *gap_lines(bill, zone), *(f"note: {note}" for note in bill.notes)]
    )


def gap_lines(bill: Bill, zone: tzinfo | None) -> list[str]:
    """Return the gaps of the meter in words; what jobs drew in them is told, not billed."""
    if not bill.gaps:
        return []
    hours = sum(gap.hours for gap in bill.gaps)
    unmetered = bill.jobs.unmetered_j / 3.6e6
    lines = [
        f"gaps: {hours:.2f} hall hours without a meter, nothing billed there; jobs drew {unmetered:,.2f} kWh of IT"
    ]
    for gap in bill.gaps[:20]:
        span = f"{moment_text(gap.start_s, zone)} to {moment_text(gap.end_s, zone)}"
        lines.append(f"  {gap.hall}: no {gap.missing}, {span} ({gap.hours:.2f} h)")
    return lines + ([f"  and {len(bill.gaps) - 20} more (--json has all)"] if len(bill.gaps) > 20 else [])


def bill_cells(amounts: Amounts, meter: Amounts) -> list[str]:
    """Return the cells of a line under `HEADS`; a figure that is not known is `-`."""
    figures = _figures(amounts, meter)

    def cell(name: str, form: str = ",.2f", scale: float = 1.0) -> str:
        value = figures[name]
        return "-" if value is None else format(value * scale, form)

    plain = [cell(name) for name in ("gpu_h", "gpu_kwh", "it_kwh", "energy_kwh")]
    shown = [*plain, cell("pue", ".3f"), cell("cost_usd"), cell("co2_kg"), cell("water_l", ",.0f")]
    return [*shown, f"{cell('share', '.2f', 100.0)} %"]


def moment_text(time_s: float, zone: tzinfo | None) -> str:
    """Return a time in the site's zone, with its offset."""
    return datetime.fromtimestamp(time_s, zone or UTC).isoformat(timespec="minutes")
