"""Explanations name true zones and numbers; what-if applies its changes; the page opens without an error."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from powerhall.plan.plan import write_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.planning import planner
from powerhall_optimizer.planning.explain import explain_lines, explainer_of
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
    assert any("if +" in text for entry in short.waiting for text in entry.what_if)


def test_adding_the_missing_amount_of_an_explanation_makes_the_job_fit(short):
    explainer = explainer_of(short)
    capacity, free = explainer.problem.capacity, explainer.free
    assert (free <= capacity).all()
    assert (free >= 0).all()
    names = explainer.problem.resource_keys
    told = 0
    for entry in short.waiting:
        for found in explainer.best(entry.job_id) if entry.code != "ineligible" else ():
            stop = min(found.end, explainer.problem.slots)
            lacks = {lack.resource: lack for lack in found.shortages}
            for resource, amount in explainer.problem.uses_of(found.option):
                room = int(free[resource, found.start : stop].min())
                extra = lacks[names[resource]].amount if names[resource] in lacks else 0
                assert room + extra >= amount
                assert extra == max(0, amount - room)
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
        assert main(["explain", job_id, "--plan", str(tmp_path / "plan.json")]) == 0
        told = capsys.readouterr().out
        assert told.startswith(job_id)
        assert "waits (" in told or "planned: " in told
        assert told.splitlines()[0].endswith(", queued")
    assert any("weight" in line for line in explain_lines(short, short.waiting[0].job_id))


def test_a_job_that_fits_nowhere_is_not_said_to_lack_weight_alone(short):
    *others, price = explain_lines(short, short.waiting[0].job_id)
    assert "prices alone would admit it from weight" in price
    fits = any("fits beside the plan" in line for line in others)
    assert price.endswith("; it does not fit beside the plan") != fits


@pytest.mark.parametrize(
    "text", ["grid", "grid=", "a.power=5", "z.power=1MW", "b.cooling=1MW", "no.weight=3", "j1.weight=-1"]
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
