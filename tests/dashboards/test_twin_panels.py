"""Every panel of every dashboard on the twin's data in a real InfluxDB: agents, roll-up, rounds, meters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from powerhall.store import Query, Select, open_store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main

pytestmark = [pytest.mark.rig, pytest.mark.slow]

TROUBLE = {
    "Hall power against budget: Power-cap leases",  # the demo's scheduler sets modes itself, without cappers
    "Optimizer: Leases of the newest rounds",
    "Optimizer: Batteries, tanks and loops: power ahead",  # the demo's site has none
    "Optimizer: Batteries, tanks and loops: content ahead",
    "Optimizer: Waiting jobs and why",  # a plan may find a place for everyone
    "Bills: CO2",  # its site file has no carbon intensities, demand charges or budgets
    "Bills: Demand charges",
    "Bills: Budgets of tenants",
    "Health and alerts: Cappers",
    "Health and alerts: Errors of GPUs",
    "Health and alerts: Cost of the agents",  # one process samples many nodes, as fast as it can
    "Health and alerts: Failing collectors",
    "Health and alerts: GPUs that do not answer",
    "Health and alerts: Sensors with implausible readings",
    "Job: J per token",  # its jobs report no progress
    "Job: J per step",
    "Node and GPU: Multiprocessors and tensor cores",  # its GPUs tell no activity of their parts
    "Node and GPU: Memory bandwidth",
    "Node and GPU: Links",
}
"""May stay empty on a site without storage and without faults; tests/rigs/site_data.py has data for them."""


@pytest.fixture(scope="module")
def url(influx: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    address = influx.url(influx.database("twin"))
    out = tmp_path_factory.mktemp("twin") / "out"
    command = [Path(sys.executable).with_name("powerhall-twin"), "demo", "--out", out, "--store", address]
    options = ["--minutes", "60", "--speedup", "5000", "--no-compare", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return address


def node_with_an_event(url: str) -> dict[str, str]:
    """Where a node is that has had an event; on the others the panel of events is rightly empty.

    It stands in the hall with plants of their own for liquid and air.
    """
    store = open_store(url)
    where = ("hall", "rack", "node")
    rows = store.query(Query("event", (Select("code", "count"),), {"site": "demo"}, where), 0.0, 4e9)
    store.close()
    there = (row.tags for row in rows if row.tags["node"] and row.tags["hall"] == "hall3")
    return next({tag: tags[tag] for tag in where} for tags in there)


def test_every_panel_has_rows_except_those_of_faults(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [f"--var={tag}={value}" for tag, value in node_with_an_event(url).items()]
    assert main(["preview", "--store", url, "--out", str(tmp_path), "--var", "site=demo", *shown, "--json"]) == 0
    empty = {
        line.removeprefix("Powerhall: ").removesuffix(": no data")
        for line in json.loads(capsys.readouterr().out)["empty"]
    }
    assert empty <= TROUBLE
    names = {f"{board.title.removeprefix('Powerhall: ')}: {panel.title}" for board in BOARDS for panel in board.panels}
    assert names >= TROUBLE


def test_the_roll_up_counts_what_the_agents_measured(url: str) -> None:
    store = open_store(url)
    fields = tuple(Select(name, "last") for name in ("gpus", "nodes", "nodes_stale", "gpus_busy", "temp_max_c"))
    (site,) = store.query(Query("site_10s", fields, {"site": "demo"}), 0.0, 4e9)
    racks = store.query(Query("rack_5m", (Select("it_power_w", "mean"),), {"site": "demo"}, ("rack",)), 0.0, 4e9)
    store.close()
    assert (site.number("gpus"), site.number("nodes"), site.number("nodes_stale")) == (768.0, 96.0, 0.0)
    assert 100 < (site.number("gpus_busy") or 0.0) <= 768
    assert len(racks) == 12
