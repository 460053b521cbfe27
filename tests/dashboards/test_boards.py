"""The dashboards: complete, consistent, equal to the committed JSON, and every query answered by real stores."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from powerhall.store.schema import MEASUREMENTS
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.build import built, differences, write
from powerhall_dashboards.grafana.query import interpolate
from powerhall_dashboards.model import Board, Panel, column_unit
from powerhall_dashboards.palette import COLOURS, GRAFANA_UNITS

BY_UID = {board.uid: board for board in BOARDS}
JSON = {Path(name).stem: json.loads(text) for name, text in built().items() if name.startswith("dashboards/")}
PANELS = [pytest.param(board, panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]
each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


def test_the_committed_json_equals_the_generated_one(root: Path) -> None:
    assert differences(root) == [], "run: powerhall-dashboards build"


def test_a_changed_absent_or_foreign_file_is_a_difference(tmp_path: Path) -> None:
    write(tmp_path)
    assert differences(tmp_path) == []
    folder = tmp_path / "dashboards" / "grafana"
    (folder / "powerhall-site.json").write_text("{}")
    (folder / "powerhall-job.json").unlink()
    (folder / "other.json").write_text("{}")
    (tmp_path / "docs" / "reference" / "schema.md").write_text("")
    assert [line.rpartition("/")[2] for line in differences(tmp_path)] == [
        "powerhall-site.json: differs from the code",
        "powerhall-job.json: absent",
        "schema.md: differs from the code",
        "other.json: no dashboard makes it",
    ]


def test_there_are_eight_dashboards_and_each_names_its_question() -> None:
    assert len(BY_UID) == 8
    assert all(board.question.endswith("?") for board in BOARDS)
    assert len({board.title for board in BOARDS}) == 8


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_panel_has_a_description_and_known_units(board: Board, panel: Panel) -> None:
    assert panel.text.endswith((".", "GPU.")), "a sentence"
    assert panel.width + panel.height > 4
    for query in panel.queries:
        for entry in query.select:
            assert column_unit(query, entry) in GRAFANA_UNITS


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_links_lead_to_dashboards_that_take_their_variables(board: Board, panel: Panel) -> None:
    (query, *_) = panel.queries
    for link in panel.links:
        names = {entry.name for entry in query.select} | set(query.group_by)
        choices = {choice.name for choice in BY_UID[link.board].choices}
        assert {link.column, *link.variables} <= names, "the row has what the link hands over"
        assert set(link.variables) <= choices, "the other dashboard takes it"


def test_the_way_down_from_site_to_job_is_linked() -> None:
    ways = {(board.uid, link.board) for board in BOARDS for panel in board.panels for link in panel.links}
    for way in (
        ("site", "hall"),
        ("hall", "node"),
        ("node", "job"),
        ("job", "node"),
        ("optimizer", "job"),
        ("health", "node"),
    ):
        assert (f"powerhall-{way[0]}", f"powerhall-{way[1]}") in ways


@each_board
def test_queries_use_only_variables_that_the_dashboard_has(board: Board) -> None:
    names = {choice.name for choice in board.choices}
    for panel in board.panels:
        for query in panel.queries:
            assert query.variables() <= names
    for choice in board.choices:
        assert set(choice.within) <= names
        assert choice.is_field or choice.name in MEASUREMENTS[choice.measurement].tags


@each_board
def test_panels_fill_the_grid_without_overlap(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in JSON[board.uid]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_a_hall_keeps_its_colour_on_every_panel() -> None:
    """Series that are named by a hall, rack or node take their colour from their name, not from their order."""
    for board in BOARDS:
        made = JSON[board.uid]
        drawn = {panel["title"]: panel for panel in made["panels"] if panel["type"] == "timeseries"}
        for panel in board.panels:
            if panel.kind == "timeseries" and any(query.group_by for query in panel.queries):
                mode = drawn[panel.title]["fieldConfig"]["defaults"]["color"]["mode"]
                assert mode == "palette-classic-by-name", panel.title


def test_a_colour_means_the_same_on_every_dashboard() -> None:
    seen: dict[str, set[str]] = {}
    for data in JSON.values():
        for panel in data["panels"]:
            for override in panel.get("fieldConfig", {}).get("overrides", []):
                name = re.sub(r"\W", "", str(override["matcher"]["options"]))
                for entry in override["properties"]:
                    if entry["id"] == "color":
                        seen.setdefault(name, set()).add(entry["value"]["fixedColor"])
    assert {"budget", "planned", "it", "cooling", "facility"} <= set(seen)
    assert {name: {COLOURS[name]} for name in seen} == seen


def loosened(schema: dict) -> dict:
    """The generated schema writes CUE's `any` as an object, and Grafana 11's own files hold what it leaves out.

    The lowest threshold is null (-Infinity) in every dashboard that Grafana saves, and an annotation's target is the
    data source's query, of which Grafana 11's schema knows only the built-in one.
    """
    definitions = schema["definitions"]
    definitions["DynamicConfigValue"]["properties"]["value"] = {}
    definitions["MatcherConfig"]["properties"]["options"] = {}
    definitions["Threshold"]["properties"]["value"] = {"type": ["number", "null"]}
    definitions["AnnotationQuery"]["properties"]["target"] = {"type": "object"}
    return schema


def schema_of(data_dir: Path, kind: str, version: str) -> dict:
    path = data_dir / "grafana-jsonschema" / f"{kind}-{version}.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    return json.loads(path.read_text())


VERSIONS = ("v11.6.x_cog-v0.0.x", "main")


@pytest.mark.parametrize("version", VERSIONS)
@each_board
def test_the_json_passes_grafanas_own_schema_of_dashboards(board: Board, version: str, data_dir: Path) -> None:
    schema = schema_of(data_dir, "dash", version)
    errors = list(jsonschema.Draft7Validator(loosened(schema)).iter_errors(JSON[board.uid]))
    assert [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in errors] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["stat", "timeseries", "heatmap", "table", "state-timeline"])
def test_options_of_each_kind_of_panel_pass_grafanas_own_schema(kind: str, version: str, data_dir: Path) -> None:
    schema = schema_of(data_dir, kind.replace("-", ""), version)
    for part, name in (("Options", "options"), ("FieldConfig", "custom")):
        if part not in schema["definitions"]:
            continue
        checker = jsonschema.Draft7Validator({**schema, "$ref": f"#/definitions/{part}"})
        for data in JSON.values():
            for panel in data["panels"]:
                if panel["type"] == kind:
                    value = (
                        panel.get("options", {})
                        if name == "options"
                        else panel["fieldConfig"]["defaults"].get("custom", {})
                    )
                    assert [error.message[:200] for error in checker.iter_errors(value)] == [], panel["title"]


def test_a_broken_dashboard_does_not_pass_grafanas_schema(data_dir: Path) -> None:
    broken = json.loads(json.dumps(JSON["powerhall-site"]))
    broken["graphTooltip"] = "crosshair"
    assert list(jsonschema.Draft7Validator(loosened(schema_of(data_dir, "dash", "main"))).iter_errors(broken))


def time_range(board: Board, panel: Panel, end_s: int) -> tuple[int, int]:
    if panel.future:
        return end_s - 300, end_s + (panel.recent_s or 0)
    return end_s - (panel.recent_s or board.hours * 3600), end_s


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_panel_has_rows_in_the_embedded_store(board: Board, panel: Panel, filled_sqlite: object) -> None:
    for query in panel.queries:
        bound = query.bind(filled_sqlite.chosen(board.uid))
        assert filled_sqlite.store.query(bound, *time_range(board, panel, filled_sqlite.end_s))


@pytest.mark.rig
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_query_of_the_json_is_answered_by_a_real_influxdb(board: Board, filled_influx: object) -> None:
    chosen = filled_influx.chosen(board.uid)
    panels = {panel.title: panel for panel in board.panels}
    store, empty = filled_influx.store, []
    for data in JSON[board.uid]["panels"]:
        if data["type"] == "row":
            continue
        start_s, end_s = time_range(board, panels[data["title"]], filled_influx.end_s)
        for target in data["targets"]:
            text = interpolate(target["query"], chosen)
            text = text.replace("$timeFilter", f"time >= {start_s * 1000}ms AND time <= {end_s * 1000}ms")
            text = text.replace("$__interval", "60s")
            assert not re.search(r"\$[A-Za-z{]", text), text
            if not store.names(text):
                empty.append(f"{data['title']}: {text}")
    assert empty == []


@pytest.mark.rig
@pytest.mark.parametrize("kind", ["sqlite", "influx", "classes"])
def test_tables_of_jobs_show_exactly_the_newest_plan(kind: str, request: pytest.FixtureRequest) -> None:
    filled = request.getfixturevalue(f"filled_{kind}")
    panels = {panel.title: panel for panel in BY_UID["powerhall-optimizer"].panels}
    jobs = {}
    for title in ("Waiting jobs and why", "Planned jobs"):
        (query,) = panels[title].queries
        rows = filled.store.query(query.bind(filled.chosen("powerhall-optimizer")), filled.end_s - 3600, filled.end_s)
        jobs[title] = sorted(str(row.values["job"]) for row in rows)
    assert jobs == {
        "Waiting jobs and why": ["job-104", "job-105"],
        "Planned jobs": ["job-100", "job-101", "job-102", "job-103"],
    }, "the plan before had nine jobs"


@pytest.mark.rig
def test_the_choice_of_the_plan_is_hidden_and_finds_the_newest(filled_influx: object) -> None:
    (variable,) = [entry for entry in JSON["powerhall-optimizer"]["templating"]["list"] if entry["name"] == "plan"]
    assert variable["hide"] == 2
    text = interpolate(variable["query"], filled_influx.chosen("")).replace("now()", f"{filled_influx.end_s}s")
    (series,) = filled_influx.store._select(text)
    assert [line[1] for line in series.values] == ["plan11"]


@pytest.mark.rig
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_variables_and_annotations_find_their_values_in_a_real_influxdb(board: Board, filled_influx: object) -> None:
    chosen = filled_influx.chosen(board.uid)
    queries = [entry["query"] for entry in JSON[board.uid]["templating"]["list"] if entry["type"] == "query"]
    queries += [
        entry["target"]["query"] for entry in JSON[board.uid]["annotations"]["list"] if not entry.get("builtIn")
    ]
    for query in queries:
        text = interpolate(query, chosen)
        text = text.replace("$timeFilter", f"time >= {filled_influx.end_s - 7200}s AND time <= {filled_influx.end_s}s")
        text = text.replace("now()", f"{filled_influx.end_s}s")
        assert not re.search(r"\$[A-Za-z{]", text), text
        assert filled_influx.store.names(text), text


def test_chosen_values_are_quoted_where_grafana_would_quote_them() -> None:
    query = '"hall" =~ /^$hall$/ AND "node" =~ /^$node$/ AND "job" = \'${job}\''
    assert interpolate(query, {"hall": ("a/1", "b.2"), "job": ("o'k",)}) == (
        '"hall" =~ /^(a\\/1|b\\.2)$/ AND "node" =~ /^(.*)$/ AND "job" = \'o\\\'k\''
    )


def test_moments_are_known_by_the_schema_and_not_by_its_wording() -> None:
    moments = {
        f"{entry.name}.{field.name}" for entry in MEASUREMENTS.values() for field in entry.fields if field.is_moment
    }
    assert moments == {
        *("job_interval.start_s", "job_interval.end_s"),
        *("plan_job.start_s", "plan_job.end_s"),
        "lease.expires_s",
    }
    assert {
        f"{entry.name}.{field.name}"
        for entry in MEASUREMENTS.values()
        for field in entry.fields
        if "since the epoch" in field.text
    } == moments, "and the schema's page says so"
