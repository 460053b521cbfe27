"""Explanations name true zones and numbers; what-if applies its changes; the page opens without an error."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from powerhall.plan.plan import write_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.planning import planner
from powerhall_optimizer.planning.changes import Levers
from powerhall_optimizer.planning.explain import explainer_of
from powerhall_optimizer.problem.usage import meter_rise
from powerhall_optimizer.report.page import report_html, write_report

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def short(snapshot):
    """A plan of a site so short of power that jobs wait."""
    tight = what_if(snapshot, "grid=-45%")
    plan = planner.make_plan(tight, RoundSettings(), 3.0, created_s=0, log=Log(quiet=True))
    assert plan.waiting
    return plan


def test_every_waiting_job_has_a_reason_a_code_and_zones_of_the_site(short):
    zones = set(short.snapshot.site.zones())
    for entry in short.waiting:
        assert entry.reason
        assert re.fullmatch(r"[a-z_]+", entry.code)
        assert set(entry.binding) <= zones
    said = [text for entry in short.waiting for text in entry.what_if]
    assert said
    assert all(text.startswith("alone, at ") for text in said), "a round checks nothing by planning again"


def test_adding_the_missing_amount_of_an_explanation_makes_the_job_fit(short):
    explainer = explainer_of(short)
    capacity, free = explainer.problem.capacity, explainer.problem.capacity - explainer.usage
    assert (free <= capacity).all()
    assert (free >= 0).all()
    names = explainer.problem.resource_keys
    told = 0
    for entry in short.waiting:
        for found in explainer.best(entry.job_id) if entry.code != "ineligible" else ():
            stop = min(found.end, explainer.problem.slots)
            lacks = {lack.resource: lack for lack in found.shortages}
            uses = [(r, np.array(amount)) for r, amount in explainer.problem.uses_of(found.option)]
            meter, rise = meter_rise(explainer.problem, capacity - free, found.option)
            for resource, amount in [*uses, (meter, rise[found.start : stop])]:
                room = free[resource, found.start : stop]
                extra = lacks[names[resource]].amount if names[resource] in lacks else 0
                assert (room + extra >= amount).all()
                assert extra == max(0, int((amount - room).max()))
                told += extra > 0
    assert told


def test_more_power_than_an_explanation_asks_for_lets_work_grow(short):
    more = replace(what_if(short.snapshot, "grid=+60kW"), planned=())
    plan = planner.make_plan(more, RoundSettings(), 3.0, created_s=0, log=Log(quiet=True))
    assert plan.value > short.value


def test_prices_stand_where_the_site_is_short_and_nowhere_else(short):
    zones = {zone.zone: zone for zone in short.zones}
    assert zones["phx"].price_per_mw
    assert max(zones["phx"].price_per_mw) > 0
    assert not zones["a/r1/k01"].price_per_mw


def test_the_command_explains_waiting_and_planned_jobs(short, tmp_path, capsys):
    write_plan(short, tmp_path / "plan.json")
    for job_id in (short.waiting[0].job_id, short.assignments[0].job_id):
        assert main(["explain", job_id, "--plan", str(tmp_path / "plan.json"), "--seconds", "0"]) == 0
        told = capsys.readouterr().out
        assert told.startswith(job_id)
        assert "waits (" in told or "planned: " in told
        assert told.splitlines()[0].startswith((f"{job_id} waits: ", f"{job_id} starts at "))
        assert told.splitlines()[1].endswith(", queued")


def test_what_a_round_says_of_a_job_holds_alone(short):
    """The limit that it names is raised by just that: the job starts then and all else is kept."""
    levers = Levers(short)
    told = next(entry for entry in short.waiting if entry.what_if)
    for lever in (lever for lever in levers.of(told.job_id) if lever.alone_s is not None):
        assert any(lever.changes[0].text in text for text in told.what_if)
        assert lever.changes[0].applied(short.snapshot) != short.snapshot


@pytest.mark.parametrize(
    "text",
    [
        "grid",
        "grid=",
        "a.power=5",
        "z.power=1MW",
        "b.cooling=1MW",
        "no.weight=3",
        "j1.weight=-1",
        "j1.deadline=soon",
        "j1.halls=z",
    ],
)
def test_a_wrong_what_if_is_refused(snapshot, text):
    with pytest.raises(Rejected, match="--what-if"):
        what_if(snapshot, text)


def test_a_what_if_changes_exactly_what_it_names(snapshot):
    changed = what_if(snapshot, "a.power=1MW, grid=-50%, b.cooling=-10%, j1.weight=40, a/r1/k01.power=+1kW")
    limits, before = SiteIndex.of(changed.site).limits_w, SiteIndex.of(snapshot.site).limits_w
    assert {z for z in limits if limits[z] != before[z]} == {"a", "phx", "a/r1/k01"}
    assert limits["a"] == 1e6
    assert limits["phx"] == before["phx"] / 2
    assert limits["a/r1/k01"] == 42e3
    assert changed.site.budgets["phx"].values == tuple(v / 2 for v in snapshot.site.budgets["phx"].values)
    assert changed.site.hall("b").plants[0].capacity_w == pytest.approx(117e3)
    assert {j.job_id for j, k in zip(changed.jobs, snapshot.jobs, strict=True) if j != k} == {"j1"}


def test_an_absolute_what_if_takes_the_place_of_a_budget_over_time(snapshot):
    """A raised limit that an event went on to hold down would be a change of nothing."""
    event = snapshot.site.budgets["phx"]
    assert min(event.values) < 320e3
    changed = what_if(snapshot, "grid=320kW").site
    assert {SiteIndex.of(changed).budget_at("phx", time_s) for time_s in event.times_s} == {320e3}


def test_a_what_if_changes_the_fields_of_a_job(snapshot):
    items = "j1.deadline=2026-07-01T12:00Z, j1.earliest=2026-07-01T06:00Z, j1.halls=a b, j1.weight=3"
    job = next(job for job in what_if(snapshot, items).jobs if job.job_id == "j1")
    assert (job.deadline_s, job.earliest_s) == (1_782_907_200.0, 1_782_885_600.0)
    assert (job.halls, job.weight) == (("a", "b"), 3.0)


def test_texts_of_jobs_cannot_break_out_of_the_page(short):
    evil = "<script>alert(1)</script>"
    first = replace(short.waiting[0], reason=evil)
    page = report_html(replace(short, waiting=(first, *short.waiting[1:]), notes=(evil,)))
    assert evil not in page


def test_names_of_jobs_cannot_break_out_of_the_page(short):
    evil = "<script>alert(1)</script>"
    waits, runs = short.waiting[0].job_id, short.assignments[0].job_id
    named = {waits: f"{evil}-w", runs: f"{evil}-r"}
    jobs = tuple(replace(job, job_id=named.get(job.job_id, job.job_id)) for job in short.snapshot.jobs)
    plan = replace(
        short,
        snapshot=replace(short.snapshot, jobs=jobs),
        waiting=(replace(short.waiting[0], job_id=named[waits]), *short.waiting[1:]),
        assignments=(replace(short.assignments[0], job_id=named[runs]), *short.assignments[1:]),
    )
    page = report_html(plan)
    assert evil not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;-w" in page
    assert "\\u0026lt;script\\u0026gt;alert(1)" in page, "hover texts of the Gantt chart"


def test_names_of_the_site_are_no_markup_in_charts(short):
    text = msgspec.json.encode(short).decode()
    for name in ("phx", "a", short.assignments[0].mode):
        text = text.replace(f'"{name}"', f'"<u>{name}"').replace(f'"{name}/', f'"<u>{name}/')
    plan = msgspec.json.decode(text, type=type(short))
    figures = re.search(r'id="figures">(.*?)</script>', report_html(plan), re.DOTALL)
    shown = list(_texts(json.loads(figures[1])))
    assert any("&lt;u&gt;a" in text for text in shown)
    assert not any("<u>" in text for text in shown)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def test_the_page_opens_in_a_browser_without_an_error_and_draws_every_chart(short, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    write_report(short, tmp_path / "report.html")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--virtual-time-budget=8000", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{tmp_path}/report.html"], capture_output=True, text=True, check=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    assert done.stdout.count('class="main-svg"') >= 8
    assert short.waiting[0].job_id in done.stdout


def test_the_page_shows_a_reason_once_with_its_jobs_on_demand(short):
    """A wall of reasons hid what holds jobs back: one row per reason comes first, the jobs open below it."""
    page = report_html(short)
    summary, _, details = page.partition("<details>")
    rows = summary.rpartition("<h2>Waiting jobs")[2].count("<tr>") - 1
    assert rows == len({entry.code for entry in short.waiting})
    assert details.partition("</details>")[0].count("<tr>") - 1 == len(short.waiting)
    assert f"All {len(short.waiting)} waiting jobs" in details
