"""The charts of a plan's page as Plotly figures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo

import msgspec
import numpy as np

from powerhall.forecasts.page_times import page_zone
from powerhall.hostlist import expand
from powerhall.plan.plan import Plan, Snapshot, ZonePlan
from powerhall.report.colours import COLOURS, hall_colours
from powerhall.report.html_page import chart_text
from powerhall.runtime.errors import Rejected
from powerhall.site.curtailment import NO_LIMIT_W
from powerhall.site.index import SiteIndex
from powerhall_optimizer.physics.plan_loads import plan_loads

__all__ = ["cooling", "gantt", "hall_power", "plan_zone", "site_power", "slot_times"]

MODES = ("#1d4e89", "#4f8ac9", "#93bde6", "#c9dff4", "#e3eefa")
_MOST_BLOCKS = 6000


def plan_zone(snapshot: Snapshot) -> tzinfo:
    """Return the offset to UTC in which a plan's page shows its times: that of the site at the plan's start."""
    return page_zone(snapshot.timezone, snapshot.start_s)


def slot_times(snapshot: Snapshot) -> list[datetime]:
    """Return the start of each slot and the end of the last one, as the clocks of the site show them."""
    zone, s = plan_zone(snapshot), snapshot
    return [datetime.fromtimestamp(s.start_s + i * s.slot_s, zone).replace(tzinfo=None) for i in range(s.slots + 1)]


def _steps(values: Sequence[float]) -> list[float]:
    """Repeat the last value, so that a step line reaches the end of the horizon."""
    return [*values, values[-1]]


def _scale(most_w: float) -> tuple[float, str]:
    """Return the unit that keeps the axis readable."""
    return (1e6, "MW") if most_w >= 2e6 else (1e3, "kW")


def _layout(figure: object, height: int, title: str) -> None:
    figure.update_layout(  # type: ignore[attr-defined]
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 40},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        yaxis_title=title,
        hovermode="x unified",
        font={"family": "system-ui, sans-serif", "size": 13},
    )


def site_power(plan: Plan) -> object:
    """Facility power of every hall stacked, with the site's budget above."""
    import plotly.graph_objects as go

    figure = go.Figure()
    times = slot_times(plan.snapshot)
    zone = next((z for z in plan.zones if z.zone == plan.snapshot.site.name), None)
    if zone is None:
        raise Rejected.field("plan", "zones", "", f"must have the site's own, {plan.snapshot.site.name!r}")
    unit, name = _scale(max(zone.planned_w))
    halls = plan_loads(plan).halls
    colours = hall_colours(halls)
    for hall, overview in halls.items():
        figure.add_scatter(
            x=times,
            y=_steps((overview.facility_w / unit).tolist()),
            name=f"{chart_text(hall)} with losses and cooling",
            stackgroup="power",
            line={"shape": "hv", "width": 0.5, "color": colours[hall]},
        )
    if any(storage.kind == "battery" for storage in plan.snapshot.site.storages):
        figure.add_scatter(
            x=times,
            y=_steps([w / unit for w in zone.planned_w]),
            name="at the meter, with batteries",
            line={"shape": "hv", "width": 1.5, "color": "#1c2430"},
        )
    if zone.budget_w and max(zone.budget_w) < NO_LIMIT_W:
        _budget(figure, times, [w / unit for w in zone.budget_w], "site budget", COLOURS["budget"])
    _layout(figure, 380, name)
    return figure


def _budget(
    figure: object, times: list[datetime], budget: Sequence[float], name: str, colour: str, **where: object
) -> None:
    figure.add_scatter(  # type: ignore[attr-defined]
        x=times,
        y=_steps(budget),
        name=name,
        line={"shape": "hv", "width": 2.5, "color": colour},
        **where,
    )


def _grid(plan: Plan, zones: Sequence[ZonePlan], what: str) -> object:
    from plotly.subplots import make_subplots

    columns = min(3, len(zones))
    rows = -(-len(zones) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=[chart_text(z.zone) for z in zones], shared_xaxes="all"
    )
    times = slot_times(plan.snapshot)
    unit, name = _scale(max(max(zone.planned_w if what == "power" else zone.heat_w) for zone in zones))
    for number, zone in enumerate(zones):
        where = {"row": number // columns + 1, "col": number % columns + 1, "showlegend": number == 0}
        load, limit = (zone.planned_w, zone.budget_w) if what == "power" else (zone.heat_w, zone.cooling_capacity_w)
        figure.add_scatter(
            x=times,
            y=_steps([w / unit for w in load]),
            name="IT power" if what == "power" else "heat",
            fill="tozeroy",
            line={"shape": "hv", "width": 1, "color": COLOURS["it" if what == "power" else "heat"]},
            **where,
        )
        if limit and max(limit) < NO_LIMIT_W:
            name, colour = ("limit", COLOURS["limit"]) if what == "power" else ("cooling capacity", COLOURS["capacity"])
            _budget(figure, times, [w / unit for w in limit], name, colour, **where)
    _layout(figure, 80 + 230 * rows, name)
    figure.update_layout(margin={"t": 70}, legend={"y": 1.0, "yref": "container", "yanchor": "top"})
    figure.update_yaxes(rangemode="tozero")
    return figure


def _halls(plan: Plan) -> list[ZonePlan]:
    names = {hall.zone for hall in plan.snapshot.site.halls}
    return [zone for zone in plan.zones if zone.zone in names]


def hall_power(plan: Plan) -> object:
    """IT power of every hall with its limit."""
    return _grid(plan, _halls(plan), "power")


def cooling(plan: Plan) -> object:
    """Heat of every cooled hall with the capacity of its plants in the forecast weather, liquid and air apart."""
    loads, found = plan_loads(plan), list[ZonePlan]()
    for zone in (hall for hall in _halls(plan) if hall.heat_w):
        heat_w, capacity_w = loads.halls[zone.zone].heat_w, loads.halls[zone.zone].capacity_w
        if len(heat_w) == 1:
            found.append(zone)
            continue
        for medium in heat_w:
            parts = [tuple(round(float(w)) for w in watts[medium]) for watts in (heat_w, capacity_w)]
            name = f"{zone.zone} {medium}"
            found.append(msgspec.structs.replace(zone, zone=name, heat_w=parts[0], cooling_capacity_w=parts[1]))
    return _grid(plan, found, "cooling")


def _gantt_rows(plan: Plan) -> Iterator[tuple[str, int, int, int, int, str]]:
    """Yield blocks (mode, first row, rows, start, end, text): one row per GPU, nodes in the order of the site."""
    site = plan.snapshot.site
    first: dict[str, int] = {}
    free_at: dict[str, list[int]] = {}
    lane = 0
    for rack in site.racks():
        for node in rack.nodes:
            first[node] = lane
            free_at[node] = [0] * site.node_types[rack.node_type].gpus
            lane += len(free_at[node])
    guests: dict[str, int] = Counter(a.beside for a in plan.assignments if a.beside)
    for a in sorted(plan.assignments, key=lambda a: (a.start_s, a.job_id)):
        lanes: list[int] = []
        for placement in a.placements:
            for node in expand(placement.nodes):
                free = [i for i, t in enumerate(free_at[node]) if t <= a.start_s][: placement.gpus_per_node]
                for i in free:
                    free_at[node][i] = a.end_s
                lanes += [first[node] + i for i in free]
        shared = f" shared with {guests[a.job_id]} jobs" if a.job_id in guests else ""
        kw = a.gpus * a.gpu_power_w / 1e3
        text = f"{chart_text(a.job_id)}: {a.gpus} GPUs{shared}, {chart_text(a.mode)}, {kw:.1f} kW"
        for run in np.split(np.array(sorted(lanes)), np.where(np.diff(sorted(lanes)) != 1)[0] + 1):
            if len(run):
                yield a.mode, int(run[0]), len(run), a.start_s, a.end_s, text


def gantt(plan: Plan) -> object:
    """Every job as a block on the GPUs that it holds; the colour is its mode, darker is faster."""
    import plotly.graph_objects as go

    s = plan.snapshot
    speed = {mode.name: mode.speed for kind in s.site.node_types.values() for mode in kind.modes}
    modes = sorted(speed, key=lambda name: -speed[name])
    end_s = s.start_s + s.slots * s.slot_s
    blocks = sorted(_gantt_rows(plan), key=lambda b: -b[2] * (b[4] - b[3]))[:_MOST_BLOCKS]
    figure, zone = go.Figure(), plan_zone(s)
    for number, mode in enumerate(modes):
        own = [b for b in blocks if b[0] == mode]
        figure.add_bar(
            orientation="h",
            name=chart_text(mode),
            base=[datetime.fromtimestamp(b[3], zone).replace(tzinfo=None) for b in own],
            x=[(min(b[4], end_s) - b[3]) * 1000 for b in own],
            y=[b[1] + b[2] / 2 for b in own],
            width=[b[2] * 0.96 for b in own],
            marker={"color": MODES[min(number, len(MODES) - 1)], "line": {"width": 0.4, "color": "#ffffff"}},
            hovertext=[b[5] for b in own],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    _layout(figure, 620, "GPU, in the order of halls, rows and racks")
    figure.update_layout(barmode="overlay", hovermode="closest", xaxis={"type": "date"}, legend_title_text="mode")
    lane = 0
    for hall in s.site.halls:
        figure.add_hline(y=lane, line={"width": 1, "color": "#5a6472"}, annotation_text=chart_text(hall.zone))
        lane += sum(map(SiteIndex.of(s.site).rack_gpus, hall.racks()))
    return figure
