"""A plan's page and points carry the time zone of its site, and halls the colours that they have on every page."""

import msgspec
import pytest

from powerhall.jobs.model import Job
from powerhall.plan.plan import Plan
from powerhall.report.colours import COLOURS, hall_colours
from powerhall_optimizer.report import charts
from powerhall_optimizer.report.page import report_html
from powerhall_optimizer.round.publish import plan_points
from rigs.plans import greedy_plan, small_site

START_S = 1_784_124_000
"""2026-07-15T14:00Z, seven in the morning in Phoenix."""


@pytest.fixture(scope="module")
def plan() -> Plan:
    site = small_site([f"n{number}" for number in range(8)])
    made = greedy_plan(
        site, [Job("a", 16, 7200.0), Job("b", 64, 3600.0)], start_s=START_S, slot_s=600, budget_w=(60_000,) * 12
    )
    waiting = tuple(
        msgspec.structs.replace(entry, reason="the last plan had it at 2026-07-15T16:35Z") for entry in made.waiting
    )
    snapshot = msgspec.structs.replace(made.snapshot, timezone="America/Phoenix")
    return msgspec.structs.replace(made, snapshot=snapshot, waiting=waiting)


def test_the_page_says_its_zone_once_and_writes_every_time_in_it(plan: Plan) -> None:
    assert plan.waiting
    page = report_html(plan)
    assert "from 2026-07-15 07:00 MST (UTC-07:00)" in page
    assert "had it at 09:35" in page
    assert "16:35Z" not in page
    assert "2026-07-15T07:00:00" in page, "charts"
    assert "2026-07-15T14:00:00" not in page


def test_a_plan_without_a_zone_is_in_utc(plan: Plan) -> None:
    snapshot = msgspec.structs.replace(plan.snapshot, timezone="")
    assert "from 2026-07-15 14:00 UTC" in report_html(msgspec.structs.replace(plan, snapshot=snapshot))


def test_the_store_gets_the_zone_that_pages_read(plan: Plan) -> None:
    (fields,) = (point.fields for point in plan_points(plan) if point.measurement == "plan")
    assert fields["timezone"] == "America/Phoenix"


def test_colours_are_those_of_every_page(plan: Plan) -> None:
    figure = charts.site_power(plan).to_plotly_json()  # type: ignore[attr-defined]
    colours = [trace["line"]["color"] for trace in figure["data"]]
    assert colours == [hall_colours(["hall1"])["hall1"], COLOURS["budget"]]
