"""A site whose names have dots, such as hall `dc1.hall1`, keeps its prices, reasons and points in every output."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Certificate, Plan, Snapshot, read_plan, write_plan
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.store import Query, Select, Store, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.preview.answers import answer_board, choose
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.leases.grant_cycle import GrantCycle
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.planning.explain import explainer_of
from powerhall_optimizer.planning.explanation import explain_lines
from powerhall_optimizer.planning.multi_site import make_multi_site_plan
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.problem.certificate import make_certificate, read_certificate
from powerhall_optimizer.report.page import report_html
from powerhall_optimizer.rollup.rollup_cycle import Rollup
from powerhall_optimizer.round.publish import plan_points, publish
from powerhall_optimizer.schedulers.file import FileSettings, FileWriter, orders
from powerhall_optimizer.schedulers.slurm.desired_state import desired_jobs
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.shed.act import shed_plan, with_frozen_budgets
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.verify.capacities import Capacities
from powerhall_optimizer.verify.multi_site import verify_multi_site
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.value import value_and_bound
from rigs.node_types import H100_NODE

HALL, COOL = "dc1.hall1", "dc1.hall2"
RACK = f"{HALL}/r.1/k.101"
SITE = (
    """
[site]
name = "ph.x"
power_limit = "400 kW"
"""
    + H100_NODE
    + f"""
[[halls]]
name = "{HALL}"
power_limit = "35 kW"
rows = [{{name = "r.1", racks = [{{name = "k.1", node_type = "h100", count = 2, nodes = 4, power_limit = "41 kW"}}]}}]

[[halls]]
name = "{COOL}"
rows = [{{name = "r.1", racks = [{{name = "k.1", node_type = "h100", count = 2, nodes = 4}}]}}]
cooling = [
  {{kind = "fixed", capacity = "24 kW", serves = "liquid"}},
  {{kind = "fixed", capacity = "70 kW", serves = "air"}},
]

[[feeds]]
name = "feed.a"
power_limit = "120 kW"
members = ["{HALL}", "{COOL}"]

[[batteries]]
name = "bess.1"
at = "feed.a"
energy = "20 kWh"
charge_power = "10 kW"
discharge_power = "10 kW"
"""
)
NOW_S = int(time.time()) // 300 * 300


def jobs() -> tuple[Job, ...]:
    many = [Job(f"p{i}", 8, 7200.0, halls=(HALL,), weight=1.0 + i / 10, preemptible=i % 2 == 0) for i in range(6)]
    return (*many, *(Job(f"c{i}", 8, 7200.0, halls=(COOL,), weight=1.0 + i / 10, preemptible=True) for i in range(6)))


def snapshot_of(folder, text: str = SITE) -> Snapshot:
    (folder / "site.toml").write_text(text)
    return Snapshot(NOW_S, NOW_S, 300, 24, read_site(folder / "site.toml")[0], jobs())


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    snapshot = snapshot_of(tmp_path_factory.mktemp("site"))
    made = make_plan(snapshot, RoundSettings(workers=1), 3.0, created_s=NOW_S, log=Log(quiet=True))
    assert made.status == "feasible"
    return made


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


def test_the_plan_is_verified_and_its_hall_has_a_price(plan, tmp_path):
    write_plan(plan, tmp_path / "plan.json")
    assert verify_plan(read_plan(tmp_path / "plan.json")) == []
    assert f"{HALL}.it_w" in plan.certificate.prices
    assert f"{COOL}.heat_liquid_w" in plan.certificate.prices
    zones = {zone.zone: zone for zone in plan.zones}
    assert max(zones[HALL].price_per_mw) > 0
    assert zones[COOL].heat_w
    assert {"ph.x", HALL, COOL, "feed.a", f"{HALL}/r.1", RACK} <= zones.keys()


def test_prices_are_read_back_to_the_resources_that_they_were_made_of(plan):
    problem = explainer_of(plan).problem
    again = make_certificate(problem, read_certificate(problem, plan.certificate))
    assert again.prices == plan.certificate.prices


def test_a_waiting_job_names_its_hall_and_tells_cooling_from_power(plan):
    waiting = {entry.job_id: entry for entry in plan.waiting}
    power = [entry for job, entry in waiting.items() if job.startswith("p") and entry.code == "power"]
    cooling = [entry for job, entry in waiting.items() if job.startswith("c") and entry.code == "cooling"]
    assert power
    assert cooling
    for entry in power:
        assert f"{HALL} (power)" in entry.reason
        assert HALL in entry.binding
    for entry in cooling:
        assert f"{COOL} (cooling)" in entry.reason
        assert COOL in entry.binding
        assert any(f"the cooling plants of {COOL} had" in text for text in entry.what_if)
        assert any(COOL in line for line in explain_lines(plan, entry.job_id))


def test_points_and_report_carry_the_names(plan, store, tmp_path):
    publish(plan, store, tmp_path / "plan.json")
    halls = {point.tags["zone"]: point.fields for point in plan_points(plan) if point.measurement == "plan_zone"}
    assert "price_per_mw" in halls[HALL]
    assert "heat_w" in halls[COOL]
    rows = store.query(Query("plan_zone", (Select("price_per_mw", "max"),), {"zone": HALL}), 0.0, NOW_S + 1e6)
    assert max(row.number("price_per_mw") or 0.0 for row in rows) > 0
    assert HALL in report_html(plan)


def test_roll_ups_and_dashboards_find_the_hall(plan, store, tmp_path):
    publish(plan, store, None)
    site = plan.snapshot.site
    for rack in site.racks():
        hall = HALL if rack.zone.startswith(HALL) else COOL
        for node in rack.nodes:
            for at in range(NOW_S - 60, NOW_S, 10):
                tags = {"site": site.name, "hall": hall, "rack": rack.zone, "node": node, "gpu": "0"}
                store.write(encode(Point("gpu", tags, {"power_w": 500.0, "temp_c": 60.0}, at * 1000)))
    Rollup(store, site, (HALL, COOL), with_site=True).run(NOW_S - 60, NOW_S)
    for measurement, where in (("hall_10s", {"hall": HALL}), ("rack_10s", {"hall": HALL, "rack": RACK})):
        rows = store.query(Query(measurement, (Select("budget_w"), Select("it_power_w")), where), 0.0, NOW_S + 1.0)
        assert rows
        assert all(row.number("budget_w") is not None for row in rows)
    given = {"site": ("ph.x",), "hall": (HALL,)}
    chosen = choose(store, float(NOW_S), given)
    board = next(board for board in BOARDS if "hall" in {choice.name for choice in board.choices if not choice.several})
    answers = answer_board(store, board, given, chosen, float(NOW_S), hours=None)
    shown = {answer.panel.title for answer in answers if not answer.empty}
    assert any(row.tags.get("hall", HALL) == HALL for answer in answers for _, rows in answer.rows for row in rows)
    assert len(shown) > 1


def test_leases_of_the_plan_reach_its_nodes(plan, store):
    site = plan.snapshot.site
    safe = {node: int(site.node_types[rack.node_type].safe_cap_w) for rack in site.racks() for node in rack.nodes}
    figures = GrantCycle(plan, Ledger(safe), bytes(32), store).run(NOW_S, NOW_S + 900.0)
    assert figures["leases"]
    rows = store.query(Query("lease", (Select("cap_w"),), {"hall": HALL}, ("node",)), NOW_S - 1.0, NOW_S + 1.0)
    assert rows


def test_the_shed_ladder_and_the_schedulers_get_the_names(plan, tmp_path):
    steps = ladder(plan, float(NOW_S))
    assert HALL in {action.hall for action in steps.actions}
    target_w = 0.8 * steps.power_w
    after = with_frozen_budgets(
        shed_plan(plan, steps, steps.rungs_to(target_w), target_w), target_w, NOW_S, NOW_S + 900.0
    )
    assert {zone.zone for zone in after.zones} == {zone.zone for zone in plan.zones}
    assert HALL in {order.hall for order in orders(plan)}
    assert FileWriter(FileSettings(orders=str(tmp_path / "orders.csv"))).apply(after).failed == []
    assert HALL in (tmp_path / "orders.csv").read_text()
    wanted = desired_jobs(plan, SlurmSettings(pin="features"), NOW_S - 1.0)
    assert HALL in {job.values.get("feat") for job in wanted}
    held = desired_jobs(plan, SlurmSettings(zone=HALL), NOW_S - 1.0)
    assert len(held) == len(wanted)


def test_what_if_changes_the_hall_that_it_names(plan):
    changed = what_if(plan.snapshot, f"{HALL}.power=-10%,{RACK}.power=20kW,{COOL}.cooling=+50%,bess.1.size=+50%").site
    assert changed.hall(HALL).power_limit_w == pytest.approx(31_500)
    assert next(rack for rack in changed.racks() if rack.zone == RACK).power_limit_w == 20_000
    assert changed.hall(COOL).plants[0].capacity_w == pytest.approx(36_000)
    assert changed.storages[0].discharge_w == pytest.approx(15_000)


def test_several_sites_keep_their_prices_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    both = [snapshot_of(tmp_path / "a"), snapshot_of(tmp_path / "b", SITE.replace('"ph.x"', '"ph"'))]
    made = make_multi_site_plan(both, RoundSettings(workers=1), 3.0, created_s=NOW_S, log=Log(quiet=True))
    assert verify_multi_site(made) == []
    assert made.certificate is not None
    for part in made.plans:
        name = part.snapshot.site.name
        assert f"{name}:{HALL}.it_w" in made.certificate.prices
        assert f"{HALL}.it_w" in part.certificate.prices
        assert not any(key.startswith(("ph:", "ph.x:")) for key in part.certificate.prices)
        assert "bess.1" in part.certificate.stored


def test_the_command_line_plans_and_explains_the_site(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "jobs.json").write_bytes(msgspec.json.encode(jobs()))
    options = ["--site", "site.toml", "--jobs", "jobs.json", "--horizon", "2h", "--seconds", "2", "--quiet"]
    assert main(["round", *options, "--start", str(NOW_S)]) == 0
    assert main(["verify", "plan.json"]) == 0
    waiting = next(entry for entry in read_plan("plan.json").waiting if entry.code == "cooling")
    capsys.readouterr()
    assert main(["explain", waiting.job_id, "--seconds", "0"]) == 0
    assert f"cooling in {COOL}" in capsys.readouterr().out


def test_pools_of_the_same_name_keep_a_capacity_each(tmp_path):
    """Type `h100` in hall `dc1.hall1` and type `hall1.h100` in hall `dc1` are both `dc1.hall1.h100.gpus`."""
    hall = """
[[halls]]
name = "{}"
rows = [{{name = "a", racks = [{{name = "k", node_type = "{}", count = 1, nodes = {}}}]}}]
"""
    text = '[site]\nname = "ph"\n' + H100_NODE + H100_NODE.replace("node_types.h100", 'node_types."hall1.h100"')
    text += hall.format("dc1", "hall1.h100", 6) + hall.format("dc1.hall1", "h100", 2)
    snapshot = msgspec.structs.replace(
        snapshot_of(tmp_path, text), jobs=tuple(Job(f"j{i}", 8, 7200.0) for i in range(14))
    )
    made = make_plan(snapshot, RoundSettings(workers=1), 3.0, created_s=NOW_S, log=Log(quiet=True))
    assert made.status == "feasible"
    assert verify_plan(made) == []
    assert len(made.assignments) == 8
    assert sorted(int(row[0]) for row in Capacities(snapshot).amounts.values()) == [16, 48]
    price = {"dc1.hall1.h100.gpus": (10**9,) * snapshot.slots}
    value, bound = value_and_bound(msgspec.structs.replace(made, certificate=Certificate(1, price)))
    assert bound >= value
