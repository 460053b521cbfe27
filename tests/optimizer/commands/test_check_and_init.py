"""`init` writes a site file on which `check` passes; `check` says what a site carries, by sums done here by hand."""

import copy
import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from powerhall.site.gpu_catalogue import CATALOGUE
from powerhall.site.site_file import read_site
from powerhall_optimizer.cli import main

SITE = """
[site]
name = "lab"
power_limit = "60 kW"
[node_types.h]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10 kW"
liquid_fraction = 0.75
modes = [
  { name = "fast", gpu_power = "1000 W", speed = 1.0 },
  { name = "slow", gpu_power = "500 W", speed = 0.7 },
]
[[halls]]
name = "h1"
cooling = [
  { kind = "fixed", serves = "liquid", capacity = "30 kW", cop = 10.0 },
  { kind = "fixed", serves = "air", capacity = "100 kW", cop = 10.0 },
]
rows = [{ name = "a", racks = [{ name = "r1", node_type = "h", nodes = 8, power_limit = "64 kW" }] }]
"""


@pytest.mark.parametrize("gpu", sorted(CATALOGUE))
def test_what_init_writes_passes_check_and_carries_every_node(gpu: str, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    given = ["init", "--out", str(path), "--name", "phx", "--gpu", gpu, "--hall", "h1=37", "--hall", "h2=3"]
    assert main(given) == 0
    site, _ = read_site(path)
    assert sum(len(rack.nodes) for rack in site.racks()) == 40
    assert main(["check", str(path)]) == 0
    server = CATALOGUE[gpu]
    kind = site.node_types[gpu.lower()]
    assert (kind.gpus, kind.max_power_w) == (server.gpus, server.max_power_w)
    assert server.source.startswith(("https://", "GPU 1400 W"))


def test_init_replaces_no_file_and_refuses_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.toml"
    for more, words in (
        (["--gpu", "H1000", "--hall", "h1=4"], "must be one of H100, H200, B200, B300, GB200, GB300, MI300X, MI355X"),
        (["--gpu", "H100", "--hall", "h1"], "must be NAME=NODES"),
        (["--gpu", "H100", "--hall", "a/b=2"], "must be a name without"),
    ):
        assert main(["init", "--out", str(path), "--name", "phx", *more]) == 1
        assert words in capsys.readouterr().err
        assert not path.exists()
    path.write_text("mine")
    assert main(["init", "--out", str(path), "--name", "phx", "--gpu", "H100", "--hall", "h1=4"]) == 1
    assert path.read_text() == "mine"


def test_check_says_what_each_limit_carries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    assert main(["check", str(path), "--json"]) == 0
    cases = {entry["case"]: entry["limits"] for entry in json.loads(capsys.readouterr().out)["carries"]}
    found = {case: {entry["limit"]: entry["nodes_carried"] for entry in limits} for case, limits in cases.items()}
    # Rack: 8 idle nodes draw 16 kW and each busy one 8 kW more: 64 kW carry six; in `slow`, 2 kW more, all eight.
    # Liquid: three quarters of the IT power: 30 kW of heat are 40 kW of IT: three nodes; in `slow` all eight (32 kW).
    # Meter: IT and a tenth of it for cooling: 60 kW are 54.5 kW of IT: four nodes.
    assert found["full power"] == {
        "h1 cooling (liquid)": 3,
        "h1 cooling (air)": 8,
        "lab at the meter": 4,
        "h1/a/r1 power": 6,
    }
    assert found["slow"] == dict.fromkeys(found["full power"], 8)
    assert cases["full power"][0]["limit"] == "h1 cooling (liquid)", "what binds first is named first"
    assert main(["check", str(path)]) == 0
    assert "full power: h1 cooling (liquid) binds first, at 3 of 8 nodes" in capsys.readouterr().out


def test_check_names_all_faults_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SITE.replace("2 kW", "2 kw").replace('"air"', '"wind"').replace("60 kW", "60"))
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert said.err == f"powerhall-optimizer: {path}: 3 faults\n"


def test_check_takes_the_worst_hour_of_each_month(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(root / "twin/powerhall_twin/demo/demo_site/site.toml"), "--json"]) == 0
    cases = json.loads(capsys.readouterr().out)["carries"]
    assert {entry["when"] for entry in cases} == {"2026-07"}
    assert all(30 < entry["dry_bulb_c"] < 50 for entry in cases)


def test_the_schema_for_editors_takes_the_shipped_sites_and_refuses_what_the_reader_refuses(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    sites = [
        *root.glob("examples/*/*.toml"),
        *root.glob("deploy/*/site.toml"),
        *root.glob("deploy/compose/site/*.toml"),
    ]
    tables = [data for path in sites if "halls" in (data := tomllib.loads(path.read_text()))]
    assert len(tables) >= 3
    for data in tables:
        assert [error.message for error in judge.iter_errors(data)] == []
    for change in (
        lambda data: data["site"].update(powr=1),
        lambda data: data["halls"][0].pop("name"),
        lambda data: data["planning"].update(stale_forecast="worst"),
        lambda data: next(iter(data["node_types"].values())).update(gpus=0),
        lambda data: data.update(feeds="msb"),
    ):
        data = copy.deepcopy(tables[0]) | {"planning": {}}
        change(data)
        assert list(judge.iter_errors(data))
