"""The room that a round leaves for jobs while nobody plans, against a plain sum."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.jobs.model import Job
from powerhall.plan.plan import StoragePlan, ZonePlan
from powerhall.plan.snapshot import Held
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.schedulers.kubernetes.release_room import read_room, room_of
from rigs.plans import greedy_plan, small_site

SITE = small_site(tuple(f"gn{n:02d}" for n in range(1, 13)))
START_S = 1_800_000_000


def plan_with(budget_w, **snapshot):
    plan = greedy_plan(SITE, (), start_s=START_S, slot_s=60, budget_w=budget_w)
    return msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(plan.snapshot, **snapshot))


@given(st.lists(st.integers(1_000, 90_000), min_size=1, max_size=30), st.integers(-100, 3_000))
def test_the_room_is_the_lowest_of_the_rest_of_the_budget(budget_w, at_s):
    zone = room_of(plan_with(budget_w)).zones["plant"]
    slot = max(0, at_s // 60)
    lowest = min(budget_w) if slot >= len(budget_w) else min(budget_w[slot:])
    assert zone.watts(START_S + at_s) == lowest
    assert (zone.gpu_w, zone.node_gpus, zone.nodes) == (1275.0, 8, "gn[01-12]")


def test_a_margin_and_what_a_storage_delivers_are_no_room():
    plan = plan_with([50_000, 50_000], margin_w={"plant": 4_000.0})
    store = StoragePlan("battery", (10_000, -10_000), (0, 0, 0))
    zones = room_of(msgspec.structs.replace(plan, storages=(store,))).zones
    assert zones["plant"].watts(START_S) == 36_000
    assert zones["plant"].watts(START_S + 60) == 46_000
    assert zones["hall1"].watts(START_S + 60) == 50_000


def test_pods_that_are_not_managed_are_in_the_power_already():
    held = (Held("ReplicaSet:team/serve", "gn[01-02]", 8, 1275.0), Held("team/mine", "gn03", 8, 1275.0))
    assert room_of(plan_with([50_000], held=held)).zones["plant"].others_gpus == 16


def test_a_rack_whose_nodes_could_exceed_its_limit_has_room_of_its_own():
    """Four nodes of 10.2 kW: a limit of 25 kW is one, 41 kW are none; what runs there keeps its power."""
    racks = [
        msgspec.structs.replace(rack, power_limit_w=w) for rack, w in zip(SITE.racks(), (25e3, 41e3, None), strict=True)
    ]
    hall = SITE.halls[0]
    rows = (msgspec.structs.replace(hall.rows[0], racks=tuple(racks)),)
    site = msgspec.structs.replace(SITE, halls=(msgspec.structs.replace(hall, rows=rows),))
    runs = Job(
        "a", 8, 3600.0, state="running", hall="hall1", mode="fast", nodes="gn01", start_s=START_S, node_type="hgx"
    )
    plan = greedy_plan(site, [runs], start_s=START_S, slot_s=60, budget_w=[60_000] * 3)
    own = tuple(
        ZonePlan(rack.zone, (10_000 * (rack is racks[0]),) * 3, (int(rack.power_limit_w),) * 3) for rack in racks[:2]
    )
    zones = room_of(msgspec.structs.replace(plan, zones=(*plan.zones, *own))).zones
    assert set(zones) == {"plant", "hall1", "hall1/r1/k1"}
    assert zones["hall1/r1/k1"].watts(START_S) == 25_000
    assert zones["hall1/r1/k1"].nodes == "gn[01-04]"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}x",
        '{"zones": {"a": 1}}',
        '{"zones": {"a": {"nodes": "n1", "gpu_w": 1, "node_gpus": 8, "others_gpus": 0, "steps": []}}}',
    ],
)
def test_a_room_that_is_none_is_refused(text):
    with pytest.raises(Rejected, match="room in the leader lease"):
        read_room(text)


def test_a_room_reads_back():
    room = room_of(plan_with([50_000, 20_000, 30_000]))
    assert read_room(msgspec.json.encode(room).decode()) == room
