"""The chart of a plan's storage: power, and content or temperature with its limits, one column per unit."""

from datetime import datetime

from powerhall.plan.plan import Plan, StoragePlan
from powerhall.report.colours import COLOURS, SERIES
from powerhall.report.html_page import chart_text
from powerhall.site.storage import Storage
from powerhall_optimizer.report.charts import slot_times

__all__ = ["charts_of_stores"]

_DELIVERS, _CHARGES, _CONTENT, _WARMTH, _LIMIT = (
    SERIES[2], SERIES[3], COLOURS["it"], COLOURS["heat"], COLOURS["limit"],
)  # fmt: skip


def charts_of_stores(plan: Plan) -> object:
    """Power of every unit above (delivered up, taken up down), its content below; of a loop its temperature."""
    from plotly.subplots import make_subplots

    s = plan.snapshot
    entries = {entry.name: entry for entry in plan.storages}
    stores = [(storage, entries[storage.name]) for storage in s.site.storages if storage.name in entries]
    titles = [chart_text(f"{storage.name}: {_what(storage)}") for storage, _ in stores]
    figure = make_subplots(
        rows=2,
        cols=len(stores),
        subplot_titles=titles,
        shared_xaxes="all",
        row_heights=[0.5, 0.5],
        vertical_spacing=0.08,
    )
    times = slot_times(s)
    for column, (storage, entry) in enumerate(stores, 1):
        _power(figure, times, entry, column)
        _state(figure, times, storage, entry, column)
        figure.update_yaxes(title_text="kW", row=1, col=column)
        figure.update_yaxes(title_text="degC" if entry.temp_c else "kWh", row=2, col=column)
    figure.update_layout(
        template="plotly_white",
        height=480,
        margin={"l": 60, "r": 20, "t": 70, "b": 40},
        hovermode="x unified",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.0, "yref": "container", "yanchor": "top", "x": 0},
    )
    result: object = figure
    return result


def _what(storage: Storage) -> str:
    if storage.kind == "battery":
        return f"battery at {storage.zone}"
    return f"{'tank' if storage.kind == 'tank' else 'loop'} of {storage.zone}"


def _power(figure: object, times: list[datetime], entry: StoragePlan, column: int) -> None:
    for name, colour, sign in (("delivers", _DELIVERS, 1), ("charges", _CHARGES, -1)):
        watts = [sign * max(0, sign * power) / 1e3 for power in entry.power_w]
        figure.add_scatter(  # type: ignore[attr-defined]
            x=times,
            y=[*watts, watts[-1]],
            name=name,
            legendgroup=name,
            showlegend=column == 1,
            fill="tozeroy",
            line={"shape": "hv", "width": 1, "color": colour},
            row=1,
            col=column,
        )


def _state(figure: object, times: list[datetime], storage: Storage, entry: StoragePlan, column: int) -> None:
    """Content with least and most; of a loop the supply temperature with its highest."""
    held = list(entry.temp_c) if entry.temp_c else [joule / 3.6e6 for joule in entry.stored_j]
    limits = [storage.max_supply_c] if entry.temp_c else [storage.min_j / 3.6e6, storage.capacity_j / 3.6e6]
    figure.add_scatter(  # type: ignore[attr-defined]
        x=times,
        y=held,
        name="supply temperature" if entry.temp_c else "content",
        showlegend=column == 1 or bool(entry.temp_c),
        line={"width": 2, "color": _WARMTH if entry.temp_c else _CONTENT},
        row=2,
        col=column,
    )
    for number, limit in enumerate(limits):
        figure.add_scatter(  # type: ignore[attr-defined]
            x=[times[0], times[-1]],
            y=[limit, limit],
            name="limit",
            legendgroup="limit",
            showlegend=column == 1 and number == 0,
            line={"width": 1.5, "dash": "dot", "color": _LIMIT},
            row=2,
            col=column,
        )
