"""`lease --site`: whoever writes the plan raises no budget; what only the plan knows still counts."""

import json
import random
import time

import msgspec
import pytest

from powerhall.plan.plan import snapshot_hash, write_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import read_site
from powerhall.store import open_store
from powerhall.timeseries import Series
from powerhall_agent.capper.carrier import newest_lease
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.leases.site_limits import within_site
from powerhall_optimizer.planning.planner import make_plan
from rigs.confirmed import confirmed_ledger
from rigs.leased_plan import SITE

KEY = bytes(range(32))
RAISED = (
    SITE.replace('power_limit = "300 kW"', 'power_limit = "900 kW"')
    .replace('power_limit = "160 kW"\n', "")
    .replace('power_limit = "90 kW", ', "")
    .replace(', power_limit = "41 kW"', "")
)


def read(folder, text):
    path = folder / "site.toml"
    path.write_text(text)
    return read_site(path)[0]


@pytest.fixture(scope="module")
def greedy(plan, tmp_path_factory):
    """A plan that verifies, of the same site with its limits raised or gone."""
    site = read(tmp_path_factory.mktemp("greedy"), RAISED)
    snapshot = msgspec.structs.replace(plan.snapshot, site=site)
    return make_plan(snapshot, RoundSettings(), 3.0, created_s=plan.created_s, log=Log(quiet=True))


@pytest.fixture
def lease(tmp_path, capsys):
    (tmp_path / "site.key").write_text(KEY.hex())
    (tmp_path / "site.toml").write_text(SITE)

    def run(plan, *more, code=0):
        write_plan(plan, tmp_path / "plan.json")
        places = {"--plan": "plan.json", "--ledger": "ledger.json", "--site-key": "site.key"}
        options = [word for name, file in places.items() for word in (name, str(tmp_path / file))]
        store = f"sqlite:///{tmp_path}/s.db"
        assert main(["lease", *options, "--store", store, "--first", *map(str, more)]) == code
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]) if code == 0 else err

    return run


def caps_w(folder, site):
    """The most that every node may draw: its lease in the store, or its safe cap."""
    caps, store = safe_caps_w(site), open_store(f"sqlite:///{folder}/s.db")
    for node, safe_w in caps.items():
        signed = newest_lease(store, node, time.time())
        if signed is not None:
            caps[node] = max(safe_w, json.loads(signed.body)["node_cap_w"])
    store.close()
    return caps


def over(site, caps):
    """The zones of a site whose nodes may draw more than its limit, by its racks and rows alone."""
    index, found = SiteIndex.of(site), []
    for zone, limit_w in index.limits_w.items():
        nodes = [node for rack in index.racks_under(zone) for node in rack.nodes]
        if limit_w is not None and sum(caps[node] for node in nodes) > limit_w + 1e-6:
            found.append(zone)
    return found


def test_a_plan_with_raised_limits_raises_no_cap_above_the_site_file(greedy, lease, tmp_path):
    site = read(tmp_path, SITE)
    confirmed_ledger(tmp_path / "ledger.json", safe_caps_w(site))
    without = lease(greedy, "--dry-run")["cap_w"]
    figures = lease(greedy, "--site", tmp_path / "site.toml")
    assert over(site, caps_w(tmp_path, site)) == []
    assert figures["cap_w"] < without - 10_000.0
    assert figures["short"] > 0


def test_without_it_the_limits_of_the_plan_count_alone(greedy, lease, tmp_path):
    site = read(tmp_path, SITE)
    confirmed_ledger(tmp_path / "ledger.json", safe_caps_w(site))
    lease(greedy)
    assert "a" in over(site, caps_w(tmp_path, site))


def test_a_limit_that_the_file_lowers_needs_no_round(plan, lease, tmp_path):
    lower = SITE.replace('power_limit = "300 kW"', 'power_limit = "220 kW"')
    (tmp_path / "site.toml").write_text(lower)
    lease(plan, "--site", tmp_path / "site.toml")
    site = read(tmp_path, lower)
    assert over(site, caps_w(tmp_path, site)) == []


def test_a_site_file_that_says_the_same_changes_no_lease(plan, lease, tmp_path):
    alone = lease(plan, "--dry-run")
    beside = lease(plan, "--dry-run", "--site", tmp_path / "site.toml")
    assert beside["cap_w"] == alone["cap_w"]
    assert beside["leases"] == alone["leases"]


def test_a_cut_that_only_the_plan_knows_still_ends_leases(plan, lease, tmp_path):
    at_s = time.time() + 400.0
    budgets = {"phx": Series((0.0, at_s), (300_000.0, 140_000.0))}
    site = msgspec.structs.replace(plan.snapshot.site, budgets=budgets)
    snapshot = msgspec.structs.replace(plan.snapshot, site=site)
    held = within_site(msgspec.structs.replace(plan, snapshot=snapshot), read(tmp_path, SITE), "site.toml")
    for time_s, watts in ((at_s - 1.0, 300_000.0), (at_s + 1.0, 140_000.0)):
        assert SiteIndex.of(held.snapshot.site).budget_at("phx", time_s) == watts


def test_at_every_time_the_lower_of_both_counts(plan, tmp_path):
    rng = random.Random(5)
    base = read(tmp_path, SITE)
    zones = ["phx", "a", "b", "a/r1", "a/r2"]

    def series():
        times = sorted(rng.sample(range(1, 5000), rng.randint(0, 6)))
        return Series((0.0, *map(float, times)), tuple(rng.uniform(1e5, 9e5) for _ in range(len(times) + 1)))

    for _ in range(50):
        ours, theirs = (
            msgspec.structs.replace(
                base,
                power_limit_w=rng.choice((None, rng.uniform(1e5, 9e5))),
                budgets={zone: series() for zone in zones if rng.random() < 0.6},
            )
            for _ in range(2)
        )
        snapshot = msgspec.structs.replace(plan.snapshot, site=ours)
        held = within_site(msgspec.structs.replace(plan, snapshot=snapshot), theirs, "site.toml").snapshot.site
        for time_s in (0.0, 1.0, 5000.0, *(rng.uniform(0.0, 5000.0) for _ in range(20))):
            limits = [SiteIndex.of(site).budgets_at(time_s) for site in (ours, theirs)]
            for zone in base.zones():
                wanted = [one[zone] for one in limits if zone in one]
                assert SiteIndex.of(held).budget_at(zone, time_s) == (min(wanted) if wanted else None)


BATTERY = """
[[batteries]]
name = "bess"
energy = "500 kWh"
charge_power = "500 kW"
discharge_power = "500 kW"
"""
OTHERS = {
    "another name": (lambda text: text.replace('"phx"', '"other"'), "site.name"),
    "a node more": (lambda text: text.replace("count = 2, nodes = 4", "count = 2, nodes = 5"), "another hall"),
    "a plant that carries less": (lambda text: text.replace('"200 kW"', '"100 kW"'), "another hall"),
    "another safe cap": (lambda text: text.replace('safe_cap = "3 kW"', 'safe_cap = "4 kW"'), "another node type"),
}


@pytest.mark.parametrize(("change", "line"), OTHERS.values(), ids=OTHERS)
def test_a_plan_of_another_site_than_the_files_is_refused_in_one_line(plan, lease, tmp_path, change, line):
    (tmp_path / "site.toml").write_text(change(SITE))
    err = lease(plan, "--site", tmp_path / "site.toml", code=1)
    assert line in err
    assert str(tmp_path / "site.toml") in err
    assert err.count("\n") == 1


def test_neither_a_battery_nor_a_negative_margin_makes_room(plan, tmp_path):
    site = read(tmp_path, SITE)
    negative = msgspec.structs.replace(plan.snapshot, margin_w={"phx": -1e6, "a": 500.0})
    held = within_site(msgspec.structs.replace(plan, snapshot=negative), site, "site.toml")
    assert held.snapshot.margin_w == {"phx": 0.0, "a": 500.0}
    charged = msgspec.structs.replace(plan.snapshot, site=read(tmp_path, SITE + BATTERY))
    with pytest.raises(Rejected, match="another storage"):
        within_site(msgspec.structs.replace(plan, snapshot=charged), site, "site.toml")


def test_an_absent_site_file_is_one_line_and_grants_nothing(plan, lease, tmp_path):
    err = lease(plan, "--site", tmp_path / "absent.toml", code=1)
    assert err.count("\n") == 1
    assert not (tmp_path / "ledger.json").exists()
    assert snapshot_hash(plan.snapshot) == plan.plan_id
