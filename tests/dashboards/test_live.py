"""Publishing to and verifying a Grafana: a stand-in of its API over a real InfluxDB (no real Grafana is seen)."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.runtime.settings import Secret
from powerhall.store import open_store
from powerhall.store.influxdb.address import parse_influx_url
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main
from powerhall_dashboards.live.client import Grafana
from powerhall_dashboards.live.publish import compare, datasource_spec, differences, publish
from powerhall_dashboards.live.verify import as_table, verify
from rigs import influxdb
from rigs.grafana_stub import ADMIN, VIEWER, GrafanaStub


@pytest.fixture
def stub() -> Iterator[GrafanaStub]:
    made = GrafanaStub()
    yield made
    made.close()


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for name, text in (("admin", ADMIN), ("viewer", VIEWER), ("wrong", "glsa_hunter2")):
        paths[name] = tmp_path / name
        paths[name].write_text(text + "\n")
    return paths


@pytest.fixture
def grafana(stub: GrafanaStub, tokens: dict[str, Path]) -> Grafana:
    return Grafana(stub.url, Secret(tokens["admin"]))


STORE = "influxdb://127.0.0.1:8086/power?version=1"


def test_publishing_makes_folder_data_source_and_all_dashboards(stub: GrafanaStub, grafana: Grafana) -> None:
    done = publish(grafana, "Powerhall", "powerhall", STORE)
    assert set(stub.dashboards) == {board.uid for board in BOARDS}
    assert stub.folders["powerhall"]["title"] == "Powerhall"
    assert stub.datasources["powerhall"]["jsonData"]["dbName"] == "power"
    assert sum(line.endswith("written") for line in done) == 9
    assert differences(grafana) == []


def test_publishing_again_writes_no_dashboard(stub: GrafanaStub, grafana: Grafana) -> None:
    publish(grafana, "Powerhall", "powerhall", STORE)
    stub.calls.clear()
    done = publish(grafana, "Powerhall", "powerhall", None)
    assert all(line.endswith("up to date") for line in done)
    assert not [call for call in stub.calls if call.startswith(("POST", "PUT"))]


def test_a_change_made_in_grafana_is_named_and_published_over(stub: GrafanaStub, grafana: Grafana) -> None:
    publish(grafana, "Powerhall", "powerhall", STORE)
    stub.dashboards["powerhall-site"]["title"] = "Mine"
    del stub.dashboards["powerhall-job"]
    assert differences(grafana) == [
        'powerhall-site: /title: "Mine" instead of "Powerhall: Site overview"',
        "powerhall-job: absent",
    ]
    publish(grafana, "Powerhall", "powerhall", None)
    assert differences(grafana) == []


@pytest.mark.rig
def test_a_difference_that_reads_like_an_absent_dashboard_is_checked_all_the_same(
    stub: GrafanaStub, grafana: Grafana, filled_influx: object
) -> None:
    publish(grafana, "Powerhall", "powerhall", filled_influx.url)
    stub.dashboards["powerhall-site"]["absent"] = "absent"
    del stub.dashboards["powerhall-job"]
    assert [(entry.uid, entry.absent) for entry in compare(grafana)] == [
        ("powerhall-site", False),
        ("powerhall-job", True),
    ]
    names = [check.what for check in verify(grafana, "powerhall", filled_influx.end_s)]
    assert "Powerhall: Site overview: Power at the meter" in names, "the panels of a changed dashboard are checked"
    assert not [name for name in names if name.startswith("Powerhall: Job: ")]


def test_a_saved_choice_of_a_site_is_no_change(stub: GrafanaStub, grafana: Grafana) -> None:
    publish(grafana, "Powerhall", "powerhall", STORE)
    for variable in stub.dashboards["powerhall-hall"]["templating"]["list"]:
        variable["current"] = {"text": "phx", "value": "phx"}
    assert differences(grafana) == []


def test_without_a_data_source_nothing_is_published(stub: GrafanaStub, grafana: Grafana) -> None:
    with pytest.raises(ConfigError, match="has no data source 'powerhall'"):
        publish(grafana, "Powerhall", "powerhall", None)
    assert stub.dashboards == {}


def test_the_data_source_logs_in_with_the_stores_token_and_never_shows_it(
    stub: GrafanaStub, grafana: Grafana, tmp_path: Path
) -> None:
    (tmp_path / "influx").write_text("influx-hunter2")
    done = publish(grafana, "Powerhall", "powerhall", f"influxdb://tsdb.example/power?token_file={tmp_path / 'influx'}")
    assert stub.datasources["powerhall"]["secureJsonData"] == {"basicAuthPassword": "influx-hunter2"}
    assert "hunter2" not in json.dumps([done, grafana.datasource("powerhall")])


@pytest.mark.parametrize(
    ("token", "words"), [("wrong", "the token is refused (401)"), ("viewer", "the token has too few rights (403)")]
)
def test_a_token_that_grafana_refuses_is_a_clear_error_without_the_token(
    stub: GrafanaStub, tokens: dict[str, Path], token: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["publish", "--url", stub.url, "--token-file", str(tokens[token]), "--store", STORE])
    error = capsys.readouterr().err
    assert code == 1
    assert words in error
    assert error.count("\n") == 1
    assert "hunter2" not in error
    assert stub.dashboards == {}


@pytest.mark.parametrize(
    ("answer", "error"),
    [((503, {"message": "starting"}), Retryable), ((429, {}), Retryable), ((400, {"message": "no"}), Rejected)],
)
def test_other_refusals_say_whether_to_try_again(
    stub: GrafanaStub, grafana: Grafana, answer: tuple[int, dict], error: type
) -> None:
    stub.broken = answer
    with pytest.raises(error, match="cannot read the folder"):
        publish(grafana, "Powerhall", "powerhall", None)


def test_a_grafana_that_is_down_is_retryable_and_an_unsafe_address_is_refused(tokens: dict[str, Path]) -> None:
    with pytest.raises(Retryable, match="does not answer"):
        Grafana("http://127.0.0.1:1", Secret(tokens["admin"])).version()
    for url, words in (
        ("http://grafana.example", "--allow-http"),
        ("https://user:hunter2@grafana.example", "must not hold a password"),
        ("ftp://grafana.example", "must be https://"),
    ):
        with pytest.raises(ConfigError, match=words) as refusal:
            Grafana(url, Secret(tokens["admin"]))
        assert words == "must be https://" or "hunter2" not in str(refusal.value)


@pytest.mark.rig
def test_verify_runs_every_query_of_every_panel(grafana: Grafana, stub: GrafanaStub, filled_influx: object) -> None:
    publish(grafana, "Powerhall", "powerhall", filled_influx.url)
    checks = verify(grafana, "powerhall", filled_influx.end_s)
    assert [check.what for check in checks if not check.ok] == []
    assert len(checks) == 2 + len(BOARDS) + sum(len(board.panels) + 3 * board.annotations for board in BOARDS)
    empty = [check.what for check in checks if check.rows == 0]
    assert empty == ["Powerhall: Node and GPU: Events of this node"], "nothing happened on the first node"
    table = as_table(checks)
    assert table[-1] == f"{len(checks)} checks, 0 failed, 1 panels without rows"
    assert stub.calls.count("POST /api/ds/query") > sum(len(board.panels) for board in BOARDS)


@pytest.mark.rig
def test_verify_runs_every_query_where_each_class_of_retention_has_its_own_policy(
    grafana: Grafana, filled_classes: object
) -> None:
    publish(grafana, "Powerhall", "powerhall", filled_classes.url)
    assert differences(grafana, by_class=True) == []
    assert differences(grafana) != [], "the dashboards name their policies"
    checks = verify(grafana, "powerhall", filled_classes.end_s, by_class=True)
    assert [check.what for check in checks if not check.ok] == []
    assert [check.what for check in checks if check.rows == 0] == ["Powerhall: Node and GPU: Events of this node"]


@pytest.mark.rig
def test_without_the_policies_panels_of_longer_classes_stay_empty(grafana: Grafana, filled_classes: object) -> None:
    publish(grafana, "Powerhall", "powerhall", filled_classes.url.replace("&retention=classes", ""))
    empty = {check.what for check in verify(grafana, "powerhall", filled_classes.end_s) if check.rows == 0}
    assert "Powerhall: Optimizer: Gap" in empty
    assert "Powerhall: Site overview: Power at the meter" not in empty


@pytest.mark.rig
def test_verify_fails_on_a_renamed_bucket_and_on_a_changed_dashboard(
    grafana: Grafana,
    stub: GrafanaStub,
    filled_influx: object,
    tokens: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(grafana, "Powerhall", "powerhall", filled_influx.url)
    stub.dashboards["powerhall-site"]["panels"][1]["title"] = "other"
    stub.datasources["powerhall"]["jsonData"]["dbName"] = "renamed"
    assert main(["verify", "--url", stub.url, "--token-file", str(tokens["admin"])]) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if "FAILED" in line]
    assert any("GPUs busy" in line and "database not found: renamed" in line for line in failed)
    assert any("Site overview" in line and "/panels/1/title" in line for line in failed)


def test_verify_reports_a_store_that_is_down_and_queries_no_panel(
    grafana: Grafana, stub: GrafanaStub, tokens: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    publish(grafana, "Powerhall", "powerhall", "influxdb://127.0.0.1:1/power?version=1")
    assert main(["verify", "--url", stub.url, "--token-file", str(tokens["admin"])]) == 1
    lines = capsys.readouterr().out.splitlines()
    (failed,) = [line for line in lines if "FAILED" in line]
    assert "data source powerhall" in failed
    assert "Connection refused" in failed
    assert not [call for call in stub.calls if call.endswith("/ds/query")]


@pytest.mark.rig
def test_verify_reports_missing_rights_of_the_stores_user(
    grafana: Grafana, stub: GrafanaStub, tokens: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := influxdb.missing():
        pytest.skip(reason)
    with influxdb.start(auth=True) as rig:
        rig.statement("CREATE USER admin WITH PASSWORD 'a' WITH ALL PRIVILEGES")
        (tmp_path / "influx-admin").write_text("a")
        (tmp_path / "reader").write_text("hunter2")
        login = f"influxdb://127.0.0.1:{rig.port}/power?version=1"
        admin = open_store(f"{login}&user=admin&password_file={tmp_path / 'influx-admin'}")
        for text in ("CREATE DATABASE power", "CREATE USER reader WITH PASSWORD 'hunter2'"):
            admin._http.statement(text)
        admin.close()
        publish(grafana, "Powerhall", "powerhall", f"{login}&user=reader&password_file={tmp_path / 'reader'}")
        assert main(["verify", "--url", stub.url, "--token-file", str(tokens["admin"])]) == 1
    said = capsys.readouterr()
    assert "data source powerhall" in said.out
    assert "reader not authorized" in said.out
    assert "hunter2" not in said.out + said.err


@pytest.mark.rig
def test_a_panel_whose_query_the_store_refuses_fails_alone(
    grafana: Grafana, filled_influx: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(grafana, "Powerhall", "powerhall", filled_influx.url)
    ask = grafana.ask
    monkeypatch.setattr(
        grafana,
        "ask",
        lambda queries, start_s, end_s: ask(
            [q | {"query": "SELEC"} if "wet_bulb" in q["query"] else q for q in queries], start_s, end_s
        ),
    )
    failed = [check for check in verify(grafana, "powerhall", filled_influx.end_s) if not check.ok]
    assert {check.what.partition(": ")[2] for check in failed} == {
        "Site overview: Outdoor air", "Cooling: Outdoor air", "Cooling: Wet bulb"
    }  # fmt: skip
    assert all("error parsing query" in check.detail for check in failed)


def test_provisioned_and_published_data_sources_are_the_same_kind(root: Path) -> None:
    folder = root / "deploy" / "grafana" / "provisioning"
    (provisioned,) = yaml.safe_load((folder / "datasources" / "powerhall.yaml").read_text())["datasources"]
    address = parse_influx_url("influxdb://influxdb/power?tls=false&allow_http=true&token_file=/absent")
    published = datasource_spec(dataclasses.replace(address, token=None), provisioned["uid"])
    for name in ("uid", "type", "access", "url", "jsonData", "basicAuthUser"):
        assert provisioned[name] == published[name], name
    assert provisioned["secureJsonData"] == {"basicAuthPassword": "$__file{/run/secrets/store-token}"}
    (provider,) = yaml.safe_load((folder / "dashboards" / "powerhall.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    rules = json.loads((folder / "alerting" / "powerhall.json").read_text())["groups"][0]["rules"]
    sources = {part["datasourceUid"] for rule in rules for part in rule["data"]}
    assert sources == {provisioned["uid"], "__expr__"}
