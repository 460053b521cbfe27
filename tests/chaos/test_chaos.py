"""The short form of `make chaos`: thirty episodes, and broken variants of the product that the harness must catch."""

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import run
from chaos.mutants import MUTANTS

CAUGHT_BY = {
    "late": {"safe"},
    "liar": {"safe", "limits"},
    "mortal": {"alive"},
    "forgetful": {"granted"},
    "generous": {"granted"},
}
"""Per variant the rules of which one must be broken."""
SEED = 1000

pytestmark = [pytest.mark.rig, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _possible():
    if reason := run.missing():
        pytest.skip(reason)


def test_thirty_episodes_break_no_promise(tmp_path):
    command = [sys.executable, run.EPISODE.with_name("run.py"), "--episodes", "30", "--keep", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["episodes=30 violations=0"], done.stdout + done.stderr
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sum(result["leases"] for result in results) > 60
    assert sum(len(result["faults"]) for result in results) > 100


@pytest.fixture(scope="module")
def caught(tmp_path_factory) -> dict[str, set[str]]:
    """The rules that each broken variant breaks."""
    keep: Path = tmp_path_factory.mktemp("mutants")
    run.compile_sources()
    names = ["", *MUTANTS]
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        made = pool.map(lambda name: run.episode(SEED, keep / (name or "none"), name, is_calm=True), names)
        return {name: {v["rule"] for v in result["violations"]} for name, result in zip(names, made, strict=True)}


def test_without_a_fault_nothing_is_found(caught):
    assert caught[""] == set()


@pytest.mark.parametrize("name", sorted(CAUGHT_BY))
def test_a_broken_variant_is_caught(caught, name):
    assert CAUGHT_BY[name] & caught[name], caught[name]


def test_every_variant_is_tried():
    assert set(CAUGHT_BY) == set(MUTANTS)
