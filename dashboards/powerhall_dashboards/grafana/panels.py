"""Panels as the foundation SDK builds them: one function per kind of panel."""

from powerhall_dashboards.grafana.query import DATASOURCE, targets
from powerhall_dashboards.grafana.sdk import (
    common,
    dashboard,
    heatmap,
    heatmap_model,
    make,
    make_common,
    stat,
    statetimeline,
    table,
    timeseries,
)
from powerhall_dashboards.model import FREE_LANE, Link, Panel, Step, column_unit
from powerhall_dashboards.palette import (
    COLOURS,
    DASHED,
    FROM_ZERO,
    GRAFANA_UNITS,
    OF_EVERY_GROUP,
    ROLES,
    STEPPED,
    WORDS,
)

__all__ = ["build_panel"]


Made = stat.Panel | timeseries.Panel | heatmap.Panel | table.Panel | statetimeline.Panel


def build_panel(panel: Panel, *, by_class: bool = False) -> Made:
    """Return the SDK's builder of this panel, without its place in the grid."""
    made = _build(panel)
    made.title(panel.title).description(panel.text).datasource(DATASOURCE)
    for target in targets(panel, by_class=by_class):
        made.with_target(target)
    if panel.kind not in ("table", "age"):
        made.interval(f"{max(round(q.every_s or 0) for q in panel.queries) or 10}s")
        made.max_data_points(panel.points)
    if panel.recent_s:
        made.time_from(f"{'+' if panel.future else ''}{panel.recent_s // 60}m")
    return made


def _build(panel: Panel) -> Made:
    match panel.kind:
        case "stat":
            return _stat(panel)
        case "age":
            return _age()
        case "timeseries":
            return _timeseries(panel)
        case "heatmap":
            return _heatmap(panel)
        case "table":
            return _table(panel)
        case "timeline":
            return _timeline()


def _unit(panel: Panel) -> str:
    return GRAFANA_UNITS[_stored_unit(panel)]


def _stored_unit(panel: Panel) -> str:
    query = panel.queries[0]
    return panel.unit if panel.unit is not None else column_unit(query, query.select[0])


def _steps(steps: tuple[Step, ...]) -> make.ThresholdsConfig:
    listed = steps or (Step(None, "neutral"),)
    return (
        make.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=step.value, color=ROLES[step.role]) for step in listed])
    )


def _reduce(fields: str = "") -> make_common.ReduceDataOptions:
    return make_common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields).values(False)


def _stat(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .unit(_unit(panel))
        .thresholds(_steps(panel.steps))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(_reduce())
        .no_value("no data")
        .mappings(
            [
                dashboard.ValueMap({value: dashboard.ValueMappingResult(text=text) for value, text in entry.items()})
                for entry in [_by_text(panel.queries[0].select[0].name)]
                if entry
            ]
        )
    )


def _by_text(name: str) -> dict[str, str]:
    """Return the words of a column of states by the value as Grafana writes it; none for other columns."""
    return {f"{value:g}": text for value, text in WORDS.get(name, {}).items()}


def _words(name: str) -> list[dict[str, object]]:
    """Return the mapping of a column of states to words, as an override holds it."""
    options = {value: {"text": text, "index": i} for i, (value, text) in enumerate(_by_text(name).items())}
    return [{"type": "value", "options": options}] if options else []


def _age() -> stat.Panel:
    return (
        stat.Panel()
        .unit("dateTimeFromNow")
        .thresholds(_steps(()))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(_reduce("/^Time$/"))
        .no_value("never")
    )


def _timeseries(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .unit(_unit(panel))
        .line_width(1)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(True)
        .legend(
            make_common.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            make_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )
    if any(query.group_by for query in panel.queries):  # a hall, rack or node has one colour on every panel
        made.color_scheme(make.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    if _stored_unit(panel) in FROM_ZERO:
        made.axis_soft_min(0)
    several = len({entry.name for query in panel.queries for entry in query.select}) > 1
    for query in panel.queries:
        for entry in query.select:
            pattern = entry.name if several or not query.group_by else ".*"
            properties = _series_style(panel, entry.name, grouped=bool(query.group_by))
            if properties:
                made.override_by_regexp(f"/(^| ){pattern}$/" if pattern != ".*" else "/.*/", properties)
    return made


def _series_style(panel: Panel, name: str, *, grouped: bool) -> list[dashboard.DynamicConfigValue]:
    properties = []
    if name in COLOURS and (not grouped or name in OF_EVERY_GROUP):
        properties.append(_property("color", {"mode": "fixed", "fixedColor": COLOURS[name]}))
    if name in panel.stack:
        properties.append(_property("custom.stacking", {"mode": "normal", "group": "A"}))
        properties.append(_property("custom.fillOpacity", 70 if panel.bars_s else 35))
    if panel.bars_s:
        properties.append(_property("custom.drawStyle", "bars"))
        properties.append(_property("custom.barAlignment", 1))
    if name in STEPPED:
        properties.append(_property("custom.lineInterpolation", "stepAfter"))
    if name in DASHED:
        properties.append(_property("custom.lineStyle", {"fill": "dash", "dash": [10, 6]}))
        properties.append(_property("custom.fillOpacity", 0))
        properties.append(_property("custom.lineWidth", 2))
    return properties


def _property(name: str, value: object) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)


def _heatmap(panel: Panel) -> heatmap.Panel:
    colours = (
        heatmap.HeatmapColorOptions()
        .mode(heatmap_model.HeatmapColorMode.SCHEME)
        .scheme("RdYlGn")
        .steps(64)
        .exponent(0.5)
        .fill("dark-orange")
        .reverse(True)
    )
    if panel.scale:
        colours.min(panel.scale[0]).max(panel.scale[1])
    return (
        heatmap.Panel()
        .calculate(False)
        .color(colours)
        .cell_gap(1)
        .cell_values(heatmap.CellValues().unit(_unit(panel)))
        .show_value(common.VisibilityMode.NEVER)
        .show_legend()
        .tooltip(heatmap.HeatmapTooltip().mode(common.TooltipDisplayMode.SINGLE).y_histogram(False))
    )


def _table(panel: Panel) -> table.Panel:
    (query,) = panel.queries
    made = table.Panel().show_header(True).no_value("nothing to show").filterable(True)
    if panel.limit:
        column = panel.sort or "Time"
        made.with_transformation(
            dashboard.DataTransformerConfig(
                id_val="sortBy", options={"fields": {}, "sort": [{"field": column, "desc": True}]}
            )
        )
        made.with_transformation(dashboard.DataTransformerConfig(id_val="limit", options={"limitField": panel.limit}))
    elif panel.sort:
        made.sort_by([make_common.TableSortByFieldState().display_name(panel.sort).desc(True)])
    # Grafana's back end gives the columns of tags in an order that changes from request to request.
    order = {
        name: place for place, name in enumerate(("Time", *query.group_by, *(entry.name for entry in query.select)))
    }
    columns = {"excludeByName": dict.fromkeys(panel.hide, True), "indexByName": order, "renameByName": {}}
    made.with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=columns))
    for entry in query.select:
        unit = column_unit(query, entry)
        properties = [_property("unit", GRAFANA_UNITS[unit])] if unit else []
        if words := _words(entry.name):
            properties.append(_property("mappings", words))
        if unit == "time":
            nothing = {"type": "value", "options": {"0": {"text": "-", "index": 0}}}
            properties.append(_property("mappings", [nothing]))
        if properties:
            made.override_by_name(entry.name, properties)
    for link in panel.links:
        made.override_by_name(link.column, [_property("links", [_link(link)])])
    return made


def _link(link: Link) -> dict[str, object]:
    chosen = "&".join(f"var-{name}=${{__data.fields.{name}}}" for name in link.variables)
    url = f"/d/{link.board}?{chosen}&var-site=${{site}}&var-datasource=${{datasource}}&${{__url_time_range}}"
    return {"title": f"Open {link.column} ${{__value.text}}", "url": url}


def _timeline() -> statetimeline.Panel:
    free = {"type": "value", "options": {FREE_LANE: {"text": " ", "color": "transparent", "index": 0}}}
    healthy = {"type": "value", "options": {"ok": {"text": "ok", "color": ROLES["good"], "index": 1}}}
    made = (
        statetimeline.Panel()
        .show_value(common.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.9)
        .fill_opacity(80)
        .line_width(0)
        .per_page(40)
        .thresholds(_steps(()))
        .color_scheme(make.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color(ROLES["neutral"]))
        .legend(
            make_common.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(False)
        )
    )
    made.override_by_regexp("/.*/", [_property("mappings", [free, healthy])])
    return made
