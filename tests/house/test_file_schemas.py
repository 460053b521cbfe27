"""JSON Schemas of all files, held by a validator of its own to files that Powerhall ships, writes and refuses."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.lease import GpuCap, Lease, sign_lease
from powerhall_agent import cli as agent
from powerhall_agent.commands.schema import FILES as AGENT_FILES
from powerhall_optimizer import cli as optimizer
from powerhall_optimizer.commands.schema import FILES as OPTIMIZER_FILES
from rigs.plans import greedy_plan, small_site

PROGRAMS = {"agent": (agent.main, AGENT_FILES), "optimizer": (optimizer.main, OPTIMIZER_FILES)}
NAMES = {name: main for main, files in PROGRAMS.values() for name in files}
DEPLOY = ("site.toml", "agent.toml", "capper.toml", "facility.toml", "scheduler.toml")
EVENT = {"start": "2026-07-15T14:00Z", "duration": "2h", "reduce_percent": 40}


@pytest.fixture
def faults(capsys: pytest.CaptureFixture[str]) -> Any:
    def found(name: str, data: object) -> list[str]:
        assert NAMES[name](["schema", name]) == 0
        schema = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator.check_schema(schema)
        return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(data)]

    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_a_schema_that_refuses_an_unknown_key(faults: Any, name: str) -> None:
    unknown: object = {"no_such_key": 1}
    assert faults(name, [unknown] if name in ("jobs.json", "events.json") else unknown)


@pytest.mark.parametrize("name", DEPLOY)
def test_the_shipped_example_fits_its_schema(faults: Any, root: Path, name: str) -> None:
    data = tomllib.loads((root / "deploy" / "config" / name).read_text())
    assert faults(name, data) == []
    assert faults(name, data | {"no_such_table": {}}) != []


def test_every_shipped_map_fits_its_schema_and_none_of_another_protocol(faults: Any, root: Path) -> None:
    maps = sorted((root / "agent/powerhall_agent/facility/maps").glob("*.toml"))
    assert len(maps) > 5
    for path in maps:
        data = tomllib.loads(path.read_text())
        assert faults("map.toml", data) == [], path.name
        assert faults("map.toml", data | {"protocol": "telex"}) != []


def test_files_of_the_planner_fit_as_they_are_written(faults: Any) -> None:
    job = json.loads(msgspec.json.encode(Job("a", 8, 3600.0)))
    assert faults("jobs.json", [job]) == []
    assert faults("jobs.json", [job | {"gpus": "eight"}]) != []
    assert faults("events.json", [EVENT]) == []
    assert faults("events.json", [EVENT | {"start": None}]) != []
    lease = sign_lease(Lease("gn01", "p" * 64, 1, 0.0, 900.0, 5600.0, (GpuCap(0, 400.0),)), b"k" * 32)
    signed = json.loads(msgspec.json.encode(lease))
    assert faults("lease.json", signed) == []
    assert faults("lease.json", {"body": signed["body"]}) != []


def test_all_schemas_are_written_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main, files in PROGRAMS.values():
        assert main(["schema", "--out", str(tmp_path / "schemas"), "--json"]) == 0
        written = json.loads(capsys.readouterr().out)["files"]
        assert [Path(path).name for path in written] == [f"{name}.schema.json" for name in files]
        assert main(["schema"]) == 1
        assert "must be one of" in capsys.readouterr().err


def test_a_plan_fits_as_it_is_written(faults: Any) -> None:
    jobs = [Job("a", 16, 7200.0), Job("b", 64, 3600.0)]
    plan = greedy_plan(small_site(["n1", "n2"]), jobs, start_s=0, slot_s=600, budget_w=(60_000,) * 12)
    data = json.loads(msgspec.json.encode(plan))
    assert faults("plan.json", data) == []
    assert faults("plan.json", data | {"status": "hopeful"}) != []
