"""The tables of a replay's report: every figure of every policy."""

from collections.abc import Callable, Mapping, Sequence

from powerhall.report.page_parts import Table
from powerhall_twin.policies.registry import POLICY_KINDS
from powerhall_twin.replay.figures import PolicyFigures
from powerhall_twin.report.page import TableSection

__all__ = ["figure_tables", "title_of"]

Column = tuple[str, Callable[[PolicyFigures], str]]


def _listed(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items()) or "none"


_WORK: tuple[Column, ...] = (
    ("weighted GPU h", lambda p: f"{p.weighted_work / 3600:,.0f}"),
    ("GPU h", lambda p: f"{p.work_gpu_s / 3600:,.0f}"),
    ("weighted per MWh", lambda p: f"{p.work_per_mwh:,.1f}"),
    ("lost GPU h", lambda p: f"{p.lost_gpu_s / 3600:,.1f}"),
    ("done", lambda p: f"{p.jobs_done} of {p.jobs}"),
    ("stops", lambda p: f"{p.stops}"),
    ("wait min", lambda p: f"{p.mean_wait_s / 60:,.0f}"),
    ("wait p95 min", lambda p: f"{p.wait_p95_s / 60:,.0f}"),
    ("deadlines missed", lambda p: f"{p.deadlines_missed} of {p.deadlines}" if p.deadlines else "none"),
)
_ENERGY: tuple[Column, ...] = (
    ("MWh", lambda p: f"{p.energy_j / 3.6e9:,.2f}"),
    ("USD", lambda p: f"{p.cost:,.0f}"),
    ("t CO2", lambda p: f"{p.co2_kg / 1000:,.2f}"),
    ("water m³", lambda p: f"{p.water_l / 1000:,.1f}"),
    ("PUE", lambda p: f"{p.pue:.3f}"),
    ("WUE l/kWh", lambda p: f"{p.wue_l_per_kwh:.2f}"),
    ("peak kW", lambda p: f"{p.peak_power_w / 1e3:,.0f}"),
    ("stores MWh", lambda p: _listed(p.stored_mwh, ".2f")),
)
_LIMITS: tuple[Column, ...] = (
    ("over a budget s", lambda p: f"{p.over_budget_s:,.0f}"),
    ("least headroom", lambda p: f"{p.least_headroom:.1%}"),
    ("cooling margin", lambda p: _listed(p.cooling_margin, ".1%")),
    ("curtailed h", lambda p: f"{p.curtailed_s / 3600:,.1f}"),
    ("of which held", lambda p: f"{p.curtailment_held:.1%}" if p.curtailed_s else "none"),
    ("too fast up, down", lambda p: f"{p.fast_rises}, {p.fast_falls}"),
    ("steepest kW/min", lambda p: f"{p.steepest_rise_w_per_s * 0.06:+,.1f}, {p.steepest_fall_w_per_s * -0.06:+,.1f}"),
    ("failures", lambda p: f"{p.failures}"),
    ("runs ended by them", lambda p: f"{p.interrupted}"),
    ("halls tripped", lambda p: f"{p.trips}"),
    ("throttled min", lambda p: f"{p.throttled_s / 60:,.1f}"),
)


def title_of(name: str) -> str:
    """Return the title of a policy in reports."""
    return POLICY_KINDS[name].title if name in POLICY_KINDS else name


def _table(policies: Sequence[PolicyFigures], columns: Sequence[Column]) -> Table:
    header = ("policy", *(name for name, _ in columns))
    rows = tuple((title_of(p.name), *(text(p) for _, text in columns)) for p in policies)
    return Table(header, rows, frozenset(range(1, len(header))))


def figure_tables(policies: Sequence[PolicyFigures]) -> list[TableSection]:
    """Return the tables of work, energy and limits, one row for each policy."""
    ramps = "Changes of power count within five minutes, where the site has a ramp limit."
    work = "Work in GPU h at full speed, less what was lost."
    return [
        TableSection("Work and waits", _table(policies, _WORK), work, style="jobs"),
        TableSection(
            "Energy, emissions and water", _table(policies, _ENERGY), "PUE and WUE over the run.", style="jobs"
        ),
        TableSection("Limits, curtailments and failures", _table(policies, _LIMITS), ramps, style="jobs"),
    ]
