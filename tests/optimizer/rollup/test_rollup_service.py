"""The roll-up as a service: runs until it is stopped, follows the site file, refuses wrong options, prunes if asked."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.store import Query, Select, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.commands import rollup as command_module
from powerhall_optimizer.rollup.rollup_cycle import Rollup

SITE_TOML = Path(__file__).parents[3] / "twin/powerhall_twin/demo/demo_site/site.toml"


def command(*arguments: str) -> list[str]:
    code = "import sys; from powerhall_optimizer.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *arguments]


def test_the_service_rolls_up_until_it_is_stopped(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    now_s = int(time.time())
    tags = {"site": "demo", "hall": "hall1", "rack": "hall1/a/k1", "node": ""}
    node = next(iter(open_demo_nodes()))
    lines = b"".join(
        encode(Point("gpu", {**tags, "node": node, "gpu": "0"}, {"power_w": 600.0}, at * 1000))
        for at in range(now_s - 120, now_s)
    )
    store.write(lines)
    service = subprocess.Popen(
        command("rollup", "--site", str(SITE_TOML), "--store", url), stderr=subprocess.PIPE, text=True
    )
    line = service.stderr.readline()
    service.terminate()
    assert service.wait(20) == 0
    service.stderr.close()
    assert "event=rollup points=" in line
    rows = store.query(Query("hall_10s", (Select("it_power_w"),), {"hall": "hall1"}), now_s - 200, now_s + 10)
    assert len(rows) >= 8
    store.close()


def open_demo_nodes() -> Iterator[str]:
    site, _ = read_site(SITE_TOML)
    yield from (node for rack in site.hall("hall1").racks() for node in rack.nodes)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--hall", "hall9"), "--hall: 'hall9': must be one of hall1, hall2, hall3"),
        (("--late", "soon"), "--late: 'soon'"),
        (("--since", "tomorrow"), "--since: 'tomorrow'"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command("rollup", "--once", "--site", str(SITE_TOML), "--store", f"sqlite:///{tmp_path / 's.db'}", *arguments),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_budget_that_changes_in_the_sites_file_is_in_force_within_a_minute_and_a_wrong_file_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for entry in SITE_TOML.parent.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    path, grid = tmp_path / "site.toml", tmp_path / "grid.csv"
    site, _ = read_site(path)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    service = command_module._Service(
        Rollup(store, site, tuple(hall.zone for hall in site.halls), True), Log(), 120.0, None, path
    )
    service.reread(1000.0)
    grid.write_text("time,power_kw\n0,512\n")
    service.reread(1059.0)
    assert service.rollup.site.budgets["demo"].at(0.0) != 512_000
    service.reread(1060.0)
    assert service.rollup.site.budgets["demo"].at(0.0) == 512_000
    grid.write_text("time,power_kw\n0,much\n")
    service.reread(1120.0)
    assert service.rollup.site.budgets["demo"].at(0.0) == 512_000
    assert "site_refused" in capsys.readouterr().err
    store.close()


def test_pruning_is_an_option_and_keeps_points_within_their_retention(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    now_s = int(time.time())
    for age_s in (60, 8 * 86_400):
        store.write(b"gpu,site=demo,hall=hall1,node=n power_w=1.0 %d\n" % ((now_s - age_s) * 1000))
    options = ["rollup", "--once", "--quiet", "--site", str(SITE_TOML), "--store"]
    count = Query("gpu", (Select("power_w", "count", "n"),))
    for more, left in (([], 2.0), (["--prune"], 1.0)):
        subprocess.run(command(*options, url, *more), check=True)
        assert store.query(count, 0, now_s + 10)[0].values == {"n": left}
    store.close()
    other = subprocess.run(
        command(*options, "influxdb://127.0.0.1:1/x", "--prune"), capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert "is for sqlite stores" in other.stderr
