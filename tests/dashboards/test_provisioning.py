"""Provisioning by files starts Grafana: alert rules, folders, data sources and dashboards together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from powerhall_dashboards.build import write_provisioning
from rigs.grafana_provisioning import faults

Change = Callable[[dict], object]


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root / "deploy" / "grafana" / "provisioning", tmp_path / "provisioning")
    shutil.copytree(root / "dashboards" / "grafana", tmp_path / "boards")
    return tmp_path


def test_what_the_checkout_ships_starts_grafana(copied: Path) -> None:
    assert faults(copied / "provisioning", copied / "boards") == []


@pytest.mark.parametrize("by_class", [False, True])
def test_what_build_writes_starts_grafana(root: Path, tmp_path: Path, by_class: bool) -> None:
    write_provisioning(tmp_path, by_class=by_class)
    (tmp_path / "boards").mkdir()
    for path in (tmp_path / "dashboards").glob("*.json"):
        path.rename(tmp_path / "boards" / path.name)
    for folder in ("datasources", "dashboards"):
        shutil.copytree(root / "deploy" / "grafana" / "provisioning" / folder, tmp_path / folder, dirs_exist_ok=True)
    assert faults(tmp_path, tmp_path / "boards") == []


def _rule(data: dict) -> dict:
    return data["groups"][0]["rules"][0]


BROKEN: dict[str, tuple[str, Change, str]] = {
    "board without panel": ("alerting", lambda d: _rule(d)["annotations"].pop("__panelId__"), "both annotations"),
    "panel without board": ("alerting", lambda d: _rule(d)["annotations"].pop("__dashboardUid__"), "both annotations"),
    "panel by name": ("alerting", lambda d: _rule(d)["annotations"].update(__panelId__="Power"), "valid integer"),
    "panel that is a row": ("alerting", lambda d: _rule(d)["annotations"].update(__panelId__="1"), "not there"),
    "state": ("alerting", lambda d: _rule(d).update(noDataState="Ok"), "noDataState 'Ok'"),
    "duration": ("alerting", lambda d: _rule(d).update({"for": "1.5m"}), "for '1.5m'"),
    "interval": ("alerting", lambda d: d["groups"][0].update(interval="25s"), "interval '25s'"),
    "condition": ("alerting", lambda d: _rule(d).update(condition="X"), "condition 'X'"),
    "source": ("alerting", lambda d: _rule(d)["data"][0].update(datasourceUid="influx"), "data source 'influx'"),
    "variable": ("alerting", lambda d: _rule(d)["annotations"].update(summary="${HOME}"), "would be expanded"),
    "same uid": ("alerting", lambda d: d["groups"][0]["rules"].append(_rule(d)), "2 times"),
    "folder by uid": ("dashboards", lambda d: d["providers"][0].update(folderUid="powerhall"), "twice"),
    "source without uid": ("datasources", lambda d: d["datasources"][0].pop("uid"), "no uid"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_grafana_refuses_is_found(copied: Path, case: str) -> None:
    part, change, words = BROKEN[case]
    (path,) = (copied / "provisioning" / part).iterdir()
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    assert words in "\n".join(faults(copied / "provisioning", copied / "boards"))
