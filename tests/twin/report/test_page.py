"""The demo's report: names of jobs and zones are text, whatever they hold."""

from types import SimpleNamespace

import msgspec
import pytest
from twin_jobs import START_S, job

from powerhall.physics.cooling import media
from powerhall.plan.plan import Assignment, Placement, Plan, Snapshot, Waiting
from powerhall_twin.demo.demo_result import Curtailment, DemoResult
from powerhall_twin.demo.site_run import JobStretch
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.report.measured import Telemetry
from powerhall_twin.report.page import report_html
from powerhall_twin.report.summary import Summary
from powerhall_twin.site.placed_runs import Slice

EVIL = "<script>alert(1)</script>"
NODE = "hall1-a-k01-n01"


@pytest.fixture
def plan(site):
    jobs = (job(f"{EVIL}-w", 8, 1.0), job(f"{EVIL}-p", 8, 1.0))
    snapshot = Snapshot(int(START_S), int(START_S), 300, 12, site, jobs)
    place = (Placement("hall1/a/k01", NODE, 8),)
    start_s = int(START_S) + 600
    planned = Assignment(
        jobs[1].job_id, "hall1", "hgx-h100", "p700", 8, 977.0, start_s, start_s + 3600, place, reason=EVIL
    )
    waiting = Waiting(jobs[0].job_id, EVIL, "power", what_if=(EVIL,))
    return Plan(1, "id", int(START_S), "feasible", 0, 0, 0.0, (planned,), (waiting,), (), snapshot)


@pytest.fixture
def telemetry(site):
    def columns(*names):
        return dict.fromkeys(names, (1.0, 2.0))

    halls = [hall.zone for hall in site.halls]
    return Telemetry(
        (START_S, START_S + 300),
        columns("facility_power_w", "it_power_w"),
        {hall: columns("it_power_w", "budget_w") for hall in halls},
        {(hall.zone, medium): ((1.0, 2.0), (3.0, 4.0)) for hall in site.halls for medium in media(hall)},
        {hall: {START_S: 1.0} for hall in halls},
    )


def summary_of(**known) -> Summary:
    empty = {float: 0.0, int: 0, bool: False}
    fields = {field.name: empty.get(field.type) for field in msgspec.structs.fields(Summary)}
    return Summary(**fields | {"worst_headroom": {EVIL: 0.1}, "realtime": (), "baselines": ()} | known)


def test_names_and_reasons_of_jobs_cannot_break_out_of_the_page(site, scenario, plan, telemetry):
    history = [JobStretch(EVIL, "pretrain", "hall1", 8, "p700", START_S, START_S + 300, (Slice(NODE, (0, 1)),))]
    outcome = SimulationOutcome("powerhall", worst_headroom={EVIL: 0.1}, worst_at_s={EVIL: START_S})
    run = SimpleNamespace(site=site, scenario=scenario(), history=history, outcome=outcome)
    cut = Curtailment(START_S, START_S + 600, START_S + 900, 0.3)
    result = DemoResult(None, "", run, None, cut, START_S, START_S + 3600, reported_plan=plan)
    page = report_html(result, summary_of(), telemetry)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "\\u0026lt;script\\u0026gt;alert(1)" in page, "hover texts of the charts"
