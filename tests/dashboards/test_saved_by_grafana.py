"""Dashboards as Grafana stores and reads them: saves through its v1 API, folders by title, columns, annotations."""

import copy
import json
import random
from collections.abc import Iterator

import pytest

from powerhall.runtime.settings import Secret
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.grafana.dashboard import board_json, choice_query
from powerhall_dashboards.live.client import Grafana
from powerhall_dashboards.live.normal import normalised
from powerhall_dashboards.live.publish import differences, publish
from powerhall_dashboards.live.verify import verify
from rigs.grafana_stub import ADMIN, GrafanaStub

STORE = "influxdb://127.0.0.1:8086/power?version=1"
DATA = {board.uid: json.loads(board_json(board)) for board in BOARDS}


@pytest.fixture
def stub() -> Iterator[GrafanaStub]:
    made = GrafanaStub(saves_by_v1=True)
    yield made
    made.close()


@pytest.fixture
def grafana(stub: GrafanaStub, tmp_path: object) -> Grafana:
    (tmp_path / "token").write_text(ADMIN)
    return Grafana(stub.url, Secret(tmp_path / "token"))


def test_publishing_settles_on_a_grafana_that_saves_through_its_v1_api(stub: GrafanaStub, grafana: Grafana) -> None:
    publish(grafana, "Powerhall", "powerhall", STORE)
    assert stub.dashboards["powerhall-site"]["timepicker"] == {}, "the stand-in rewrites what it stores"
    assert differences(grafana) == []
    stub.calls.clear()
    assert all(line.endswith("up to date") for line in publish(grafana, "Powerhall", "powerhall", None))
    assert not [call for call in stub.calls if call.startswith(("POST", "PUT"))]


def test_a_change_on_such_a_grafana_is_still_found(stub: GrafanaStub, grafana: Grafana) -> None:
    publish(grafana, "Powerhall", "powerhall", STORE)
    panels = stub.dashboards["powerhall-hall"]["panels"]
    (power,) = [panel for panel in panels if panel["title"] == "IT power against budget"]
    power["targets"][0]["query"] = "SELECT 1"
    power["fieldConfig"]["defaults"]["unit"] = "short"
    found = differences(grafana)
    assert [line.split("/")[-1].split(":")[0] for line in found] == ["unit", "query"]


@pytest.mark.parametrize("seed", range(20))
def test_any_default_may_be_dropped_or_written_out(seed: int) -> None:
    """Whatever subset of empty and default values a version of Grafana leaves out, nothing counts as a change."""
    rng = random.Random(seed)

    def stored(value: object) -> object:
        if isinstance(value, dict):
            droppable = {name for name, inner in value.items() if inner in (None, "", [], {}) or inner is False}
            droppable -= {"editable"}  # true by default
            return {name: stored(inner) for name, inner in value.items() if name not in droppable or rng.random() < 0.5}
        return [stored(entry) for entry in value] if isinstance(value, list) else value

    for uid, data in DATA.items():
        assert normalised(stored(data)) == normalised(data), uid


@pytest.mark.parametrize("seed", range(40))
def test_any_change_of_a_text_or_number_is_a_difference(seed: int) -> None:
    rng = random.Random(seed)
    data = copy.deepcopy(DATA[rng.choice(sorted(DATA))])
    before = normalised(data)
    panel = rng.choice([entry for entry in data["panels"] if entry["type"] != "row"])
    leaves: list[tuple[dict, str]] = []

    def collect(value: object) -> None:
        for name, inner in value.items() if isinstance(value, dict) else []:
            if isinstance(inner, str | int | float) and not isinstance(inner, bool) and inner not in (0, ""):
                leaves.append((value, name))
            collect(inner)
        for entry in value if isinstance(value, list) else []:
            collect(entry)

    collect(panel)
    holder, name = rng.choice(leaves)
    holder[name] = f"{holder[name]}x" if isinstance(holder[name], str) else holder[name] + 1
    assert normalised(data) != before, name


def test_a_folder_that_alert_rules_made_by_title_is_used(stub: GrafanaStub, grafana: Grafana) -> None:
    stub.folders["cf3k9x"] = {"id": 1, "uid": "cf3k9x", "title": "Powerhall"}
    publish(grafana, "Powerhall", "powerhall", STORE)
    assert list(stub.folders) == ["cf3k9x"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_table_names_the_place_of_each_of_its_columns(board: object) -> None:
    """Grafana's back end gives the columns of tags in the order of a Go map, another one each time."""
    tables = {panel.title: panel for panel in board.panels if panel.kind == "table"}
    shown = [panel for panel in DATA[board.uid]["panels"] if panel["type"] == "table"]
    assert {panel["title"] for panel in shown} == set(tables)
    for panel in shown:
        (query,) = tables[panel["title"]].queries
        (order,) = [entry["options"]["indexByName"] for entry in panel["transformations"] if entry["id"] == "organize"]
        assert sorted(order, key=order.get) == ["Time", *query.group_by, *(entry.name for entry in query.select)]


@pytest.mark.rig
def test_the_nodes_of_a_job_are_the_only_values_that_its_variable_offers(filled_influx: object) -> None:
    (board,) = [board for board in BOARDS if board.uid == "powerhall-job"]
    choices = {choice.name: choice for choice in board.choices}
    text = choice_query(choices["node"], choices).replace("${job}", "job-102").replace("/^$site$/", "/^phx$/")
    text = text.replace("now() - 7d", "1000000000s")
    (series,) = filled_influx.store._select(text)
    assert list(series.columns) == ["time", "node"], "every column's values would be offered"
    assert {row[1] for row in series.values} == {"n3"}


@pytest.mark.rig
def test_verify_runs_annotations_as_grafana_sends_them(grafana: Grafana, filled_classes: object) -> None:
    publish(grafana, "Powerhall", "powerhall", filled_classes.url)
    checks = verify(grafana, "powerhall", filled_classes.end_s, by_class=True)
    marks = {check.what: check.rows for check in checks if ": marks of " in check.what}
    assert len(marks) == 3 * sum(board.annotations for board in BOARDS)
    assert marks["Powerhall: Site overview: marks of Curtailments"] == 1, "found under its policy"
