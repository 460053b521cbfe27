"""The emergency shed against the twin's meter: real ladder, leases, cappers; and the way back up after the event."""

import dataclasses
import json
import math
from itertools import pairwise

import pytest

from powerhall.lease import GpuCap
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import read_site
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.signals import parse_signals
from powerhall_twin.cli import main
from powerhall_twin.shed.shed_site import ShedSettings, assembled, settle
from powerhall_twin.shed.trial import run_shed, shed

pytestmark = pytest.mark.slow


def test_a_cut_of_30_percent_holds_within_10_s_and_touches_no_protected_job(tmp_path):
    trial = run_shed(ShedSettings(tmp_path))
    assert trial.nodes == 96
    assert trial.protected >= 3
    assert trial.target_w <= 0.7 * trial.before_w + 1.0
    assert trial.compliant_s is not None, trial.text()
    assert 0.5 < trial.compliant_s <= 10.0, trial.text()
    assert trial.over_after_deadline == 0
    assert trial.samples > 200
    assert trial.protected_touched == ()
    assert trial.outcome.confirmed == trial.outcome.leases > 0
    assert trial.after_w <= trial.target_w
    print(trial.text())


def test_the_trial_fails_where_carriers_poll_too_seldom(small):
    """A check that can fail: with a poll every 30 s the leases cannot be in force in 10 s."""
    settings = dataclasses.replace(small, poll_s=30.0, scheduler_s=25.0)
    with assembled(settings) as twin:
        trial = shed(twin, settle(twin))
    assert not trial.ok
    assert trial.over_after_deadline > 0
    assert any("have not confirmed" in problem for problem in trial.outcome.problems)


def test_a_changed_limit_counts_as_touched(small):
    with assembled(small) as twin:
        settle(twin)
        victim = next(iter(twin.runs))
        part = twin.runs[victim].slices[0]
        twin.watch((victim,))
        twin.advance(1.0)
        assert not twin.touched
        for _ in range(2):  # the capper looks once a second, and may set it right before the meter is read
            twin.cappers.nodes[part.node].limiter.apply((GpuCap(part.gpus[0], 222.0),))
            twin.advance(0.25)
        assert twin.touched == {victim}


@pytest.fixture
def small(demo_folder, tmp_path):
    """A quarter of the demo's site, whose grid limits how fast it may rise after an event."""
    for entry in demo_folder.iterdir():
        text = entry.read_text()
        if entry.name == "site.toml":
            text = text.replace("nodes = 8", "nodes = 2")
            text = text.replace('name = "demo"\n', 'name = "demo"\nevents = "events.json"\nramp_up = "8 kW/min"\n', 1)
        if entry.name == "grid.csv":
            text = "time,power_kw\n0,175\n"
        (tmp_path / entry.name).write_text(text)
    (tmp_path / "events.json").write_text("[]")
    return ShedSettings(tmp_path, solve_s=0.5, after_s=20.0, before_s=20.0)


def test_after_the_event_the_site_comes_back_in_the_steps_that_the_ramp_allows(small, tmp_path):
    small = dataclasses.replace(small, share=0.2)  # 30 % of what the ramp let it draw would be below its safe caps
    with assembled(small) as twin:
        plan = settle(twin)
        full_w, command_s = twin.meter_w[-1], twin.now_s
        outcomes = []

        def act(limit_w, reduction, end_s, within_s):
            outcomes.append(shed(twin, plan, until_s=end_s).outcome)
            return outcomes[-1]

        files = tmp_path / "state.json", tmp_path / "events.json"
        clock = lambda: twin.now_s  # noqa: E731 - both clocks of the planner
        events = EventManager(*files, act, Log(quiet=True), clock, steady=clock)
        event = {"event_id": "dr", "duration": "6 min", "reduce_percent": 20}
        (signal,) = parse_signals(json.dumps(event).encode(), "test", "demo", twin.now_s)
        events.receive(signal)
        events.tick()
        assert outcomes[0].met, outcomes[0].problems
        twin.settings = dataclasses.replace(small, step_s=2.0)
        for _ in range(4):  # rounds of five minutes, as the timer runs them
            twin.advance(300.0 - twin.now_s % 300.0)
            events.tick()
            twin.measured.sim.change_site(read_site(tmp_path / "site.toml")[0])
            plan = twin.round(twin.site, plan)
            twin.adopt(plan)
            twin.lease(plan)
            twin.advance(290.0)
    assert events.event("dr").state == "ended"
    seen = [
        (at_s, power_w, SiteIndex.of(twin.site).budgets_at(at_s)["demo"])
        for at_s, power_w in zip(twin.at_s, twin.meter_w, strict=True)
        if at_s > command_s + 10.0
    ]
    assert [row for row in seen if row[1] > row[2] + 1.0] == []
    during = [(power_w, limit_w) for at_s, power_w, limit_w in seen if at_s < signal.end_s]
    assert {round(limit_w) for _, limit_w in during} == {math.floor(outcomes[0].target_w)}
    limits = [limit_w for at_s, _, limit_w in seen if at_s > signal.end_s]
    rises = {at_s: later - now for (at_s, _, now), (_, _, later) in pairwise(seen) if later > now}
    assert max(rises.values()) <= 8e3 * 5 + 1.0
    assert min(b - a for a, b in pairwise(rises)) >= 299.0
    assert limits[0] == pytest.approx(outcomes[0].target_w, abs=1.0), "the first step up comes after five minutes"
    top_w = max(power_w for at_s, power_w, _ in seen if at_s > seen[-1][0] - 200.0)
    assert top_w > 0.85 * full_w, "and the site comes back"
    kilowatts = [round(w / 1e3, 1) for w in (full_w, outcomes[0].target_w, max(during)[0], *sorted(set(limits)), top_w)]
    print(f"full, target, most during the event, limits afterwards, most at the end: {kilowatts} kW")


def test_a_cut_of_zero_percent_is_refused(tmp_path, capsys):
    assert main(["shed", "--out", str(tmp_path), "--by", "0"]) == 1
    assert "--by" in capsys.readouterr().err
