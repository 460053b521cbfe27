"""Plans that Slurm's own state shows to be older than the newest, or of another site, are refused."""

import json

import msgspec
import pytest

from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.slurm.plan_refusals import refuse_foreign
from powerhall_optimizer.schedulers.slurm.records import parse_queue
from powerhall_optimizer.schedulers.slurm.reservations import (
    Curtailment,
    changes,
    parse_reservations,
    wanted,
    writer_of,
)
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from rigs.plans import greedy_plan, small_site
from rigs.slurm_world import job, pending

NOW_S = 1_795_880_000
NODES = [f"gn{n:02d}" for n in range(1, 13)]
SITE = small_site(NODES, power_limit_w=120_000.0)
CUT = [120_000] * 2 + [40_000] * 10


def plan_at(taken_s: int, name: str = "plant 1") -> Plan:
    site = msgspec.structs.replace(SITE, name=name)
    plan = greedy_plan(site, (), start_s=NOW_S, slot_s=300, budget_w=CUT)
    return msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(plan.snapshot, taken_s=taken_s))


def made_by(plan: Plan) -> list[Curtailment]:
    """Return the reservations of a plan as Slurm tells them, after its commands."""
    tighten, _ = changes(wanted(plan, SlurmSettings(), 120, NOW_S), [], "kw", NOW_S, writer_of(plan))
    lines = [line.removeprefix("create reservation ") for line in tighten]
    found = parse_reservations("\n".join(lines), "kw")
    assert len(found) == len(lines) == 1
    return found


def test_a_plan_older_than_the_one_that_cut_the_budget_is_refused_where_no_job_is_marked():
    cut = made_by(plan_at(NOW_S))
    refuse_foreign(plan_at(NOW_S), NODES, [], cut)
    refuse_foreign(plan_at(NOW_S + 300), NODES, [], cut)
    with pytest.raises(Rejected, match="must not be older than the newest plan that was written, 900 s younger"):
        refuse_foreign(plan_at(NOW_S - 900), NODES, [], cut)


def test_the_reservation_of_the_same_plan_is_left_as_it_is():
    plan = plan_at(NOW_S)
    want = wanted(plan, SlurmSettings(), 120, NOW_S)
    assert changes(want, made_by(plan), "kw", NOW_S, writer_of(plan)) == ([], [])
    assert changes([], made_by(plan), "kw", NOW_S)[1][0].startswith("delete ReservationName=powerhall_kw_")


def test_a_plan_of_another_site_leaves_the_cut_and_the_pins_of_the_first():
    elsewhere = plan_at(NOW_S + 300, "elsewhere")
    with pytest.raises(Rejected, match="a plan of site 'plant_1' has nodes or licences of it"):
        refuse_foreign(elsewhere, NODES, [], made_by(plan_at(NOW_S)))
    mark = f"powerhall:nodes=gn01;at={NOW_S};site=plant_1"
    pinned = parse_queue(json.dumps({"jobs": [pending(1, admin_comment=mark)]}))
    with pytest.raises(Rejected, match="'plant_1'"):
        refuse_foreign(elsewhere, NODES, pinned, [])
    refuse_foreign(plan_at(NOW_S), NODES, pinned, [])


def test_sites_with_nodes_of_their_own_share_a_cluster():
    mark = f"powerhall:nodes=other01;at={NOW_S + 900};site=other"
    records = parse_queue(json.dumps({"jobs": [pending(1, admin_comment=mark), job(2, nodes="other02")]}))
    refuse_foreign(plan_at(NOW_S), [*NODES, "other01"], records, [Curtailment(0, 1, 1, "powerhall_kw_0")])
    with pytest.raises(Rejected, match="whose nodes this Slurm cluster has"):
        refuse_foreign(plan_at(NOW_S), ["other01"], records, [])


def test_a_plan_that_changes_or_ends_a_cut_is_remembered_by_a_note():
    """A reservation keeps the name of the plan that made it; one of a later plan's update does not tell of it."""
    cut, newer = made_by(plan_at(NOW_S - 900)), plan_at(NOW_S)
    want = wanted(newer, SlurmSettings(), 130, NOW_S)
    for later in (want, []):
        tighten, loosen = changes(later, cut, "kw", NOW_S, writer_of(newer))
        (note,) = (line for line in tighten if "newest" in line)
        assert note == tighten[0]
        kept = [*cut, *parse_reservations(note.removeprefix("create reservation "), "kw")]
        with pytest.raises(Rejected, match="must not be older"):
            refuse_foreign(plan_at(NOW_S - 300), NODES, [], kept)
        refuse_foreign(plan_at(NOW_S - 300, "elsewhere"), NODES, [], kept[1:])
        again = changes(later, kept[1:], "kw", NOW_S, writer_of(plan_at(NOW_S + 300)))
        assert not any("newest" in line for line in (*again[0], *again[1]))
        ended = changes([], kept, "kw", NOW_S, writer_of(plan_at(NOW_S + 300)))
        assert ended[1][-1] == f"delete ReservationName={kept[-1].name}"
        assert changes([], kept[1:], "kw", NOW_S)[1] == [f"delete ReservationName={kept[-1].name}"]
    assert loosen


@pytest.mark.parametrize("ahead_s", [120, 86_400, 98_204_119_999])
def test_marks_of_a_clock_that_was_ahead_bar_no_plan_of_now(ahead_s):
    mark = f"powerhall:nodes=gn01;at={NOW_S + ahead_s};site=plant_1"
    records = parse_queue(json.dumps({"jobs": [pending(1, admin_comment=mark)]}))
    refuse_foreign(plan_at(NOW_S - 5), NODES, records, [], now_s=NOW_S)
    with pytest.raises(Rejected, match="must not be older"):
        refuse_foreign(plan_at(NOW_S - 3600), NODES, records, [], now_s=NOW_S)
    with pytest.raises(Rejected, match="must not be older"):
        refuse_foreign(plan_at(NOW_S - 5), NODES, records, [], now_s=NOW_S + ahead_s)
