"""A site with a store for each hall: each query goes where its points are, by the hall that the reader chose."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from powerhall.runtime.settings import Secret
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main
from powerhall_dashboards.grafana.dashboard import board_json
from powerhall_dashboards.live.client import Grafana
from powerhall_dashboards.live.publish import differences, publish
from rigs.grafana_provisioning import faults
from rigs.grafana_stub import ADMIN, GrafanaStub

OF_HALLS = re.compile(
    r"gpu(_\w+)?|node|agent|collector|sensor|job_interval|job_progress|lease|lease_confirmation|capper"
)
"""What docs/guide/store.md says that a hall's store holds."""
SITE, HALL = "${datasource}", "${hall_datasource}"


@pytest.fixture
def stub() -> Iterator[GrafanaStub]:
    made = GrafanaStub()
    yield made
    made.close()


def measurements(query: str) -> set[str]:
    return set(re.findall(r'FROM "(\w+)"', query))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_query_reads_the_store_that_has_its_points(board) -> None:
    data = json.loads(board_json(board, by_hall=True))
    asked = [(target["query"], target["datasource"]["uid"]) for p in data["panels"] for target in p.get("targets", [])]
    asked += [(v["query"], v["datasource"]["uid"]) for v in data["templating"]["list"] if v["type"] == "query"]
    assert asked
    for query, source in asked:
        (name,) = measurements(query)
        assert source == (HALL if OF_HALLS.fullmatch(name) else SITE), query
    variables = [variable["name"] for variable in data["templating"]["list"]]
    if any(source == HALL for _, source in asked):
        assert variables[:4] == ["datasource", "site", "hall", "hall_datasource"], "a hall is chosen before its store"
    else:
        assert "hall_datasource" not in variables


def test_choosing_a_hall_chooses_its_data_source_and_no_other() -> None:
    (board,) = (board for board in BOARDS if board.uid == "powerhall-node")
    variables = {v["name"]: v for v in json.loads(board_json(board, by_hall=True))["templating"]["list"]}
    assert not variables["hall"].get("multi")
    assert not variables["hall"].get("includeAll")
    pattern = variables["hall_datasource"]["regex"].strip("/").replace("$hall", re.escape("h1.a"))
    names = ["Powerhall", "Powerhall-h1.a", "Powerhall-h1xa", "Powerhall-h2", "powerhall-h1.a", "Other-h1.a"]
    assert [name for name in names if re.search(pattern, name)] == ["Powerhall-h1.a", "powerhall-h1.a"]


def test_what_is_shipped_has_one_store(root: Path) -> None:
    assert "hall_datasource" not in (root / "dashboards/grafana/powerhall-node.json").read_text()


def test_publishing_for_halls_makes_a_data_source_for_each_and_settles(stub: GrafanaStub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(ADMIN)
    stores = tmp_path / "stores.toml"
    hosts = {"site": "tsdb", "hall1": "tsdb1", "hall2": "tsdb2"}
    url = {
        name: f"influxdb://{host}.site:8086/power?version=1&allow_http=true&tls=false" for name, host in hosts.items()
    }
    stores.write_text(f'site = "{url["site"]}"\n[halls]\nhall1 = "{url["hall1"]}"\nhall2 = "{url["hall2"]}"\n')
    grafana = Grafana(stub.url, Secret(tmp_path / "token"))
    done = publish(grafana, "Powerhall", "powerhall", f"halls:///{stores}")
    made = {uid: (source["name"], source["url"]) for uid, source in stub.datasources.items()}
    assert made == {
        "powerhall": ("Powerhall", "http://tsdb.site:8086"),
        "powerhall-hall1": ("Powerhall-hall1", "http://tsdb1.site:8086"),
        "powerhall-hall2": ("Powerhall-hall2", "http://tsdb2.site:8086"),
    }
    assert sum(line.startswith("data source") for line in done) == 3
    assert differences(grafana, by_hall=True) == []
    assert differences(grafana) != []


def test_rules_of_what_nodes_write_are_there_once_for_each_hall(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    assert main(["build", "--out", str(out), "--hall", "hall1", "--hall", "hall2"]) == 0
    rules = json.loads((out / "alerting/powerhall.json").read_text())["groups"][0]["rules"]
    assert len({rule["uid"] for rule in rules}) == len({rule["title"] for rule in rules}) == len(rules)
    assert max(len(rule["uid"]) for rule in rules) <= 40
    for rule in rules:
        queried = [part for part in rule["data"] if "query" in part["model"]]
        names = {name for part in queried for name in measurements(part["model"]["query"])}
        of_halls = any(OF_HALLS.fullmatch(name) or name == "event" for name in names)
        assert {part["datasourceUid"] for part in queried} <= (
            {"powerhall-hall1", "powerhall-hall2"} if of_halls else {"powerhall"}
        ), rule["title"]
    provisioning = tmp_path / "provisioning"
    for kind in ("alerting", "dashboards", "datasources"):
        (provisioning / kind).mkdir(parents=True)
    (provisioning / "alerting/powerhall.json").write_text((out / "alerting/powerhall.json").read_text())
    shipped = root / "deploy/grafana/provisioning"
    (provisioning / "dashboards/p.yaml").write_text((shipped / "dashboards/powerhall.yaml").read_text())
    sources = yaml.safe_load((shipped / "datasources/powerhall.yaml").read_text())
    (site,) = sources["datasources"]
    halls = [{**site, "name": f"Powerhall-{hall}", "uid": f"powerhall-{hall}"} for hall in ("hall1", "hall2")]
    (provisioning / "datasources/p.yaml").write_text(yaml.safe_dump({**sources, "datasources": [site, *halls]}))
    assert faults(provisioning, out / "dashboards") == []
