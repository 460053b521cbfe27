"""What Slurm says of nodes and jobs becomes a snapshot whose watts are those of an independent sum, in all shapes."""

import json
import random

import pytest

from powerhall.plan.plan import Snapshot
from powerhall_optimizer.inputs.left_out_jobs import fitting_jobs
from powerhall_optimizer.inputs.observed_nodes import observed_nodes
from powerhall_optimizer.physics.plan_loads import power_now_w
from powerhall_optimizer.schedulers.slurm.cluster import PlacementRules, parse_partitions, parse_reserved_nodes
from powerhall_optimizer.schedulers.slurm.desired_state import Change, DesiredJob, decide
from powerhall_optimizer.schedulers.slurm.queue import to_queue
from powerhall_optimizer.schedulers.slurm.records import parse_nodes, parse_queue
from powerhall_optimizer.schedulers.slurm.tres import parse_gres
from rigs.slurm_world import (
    NOW_S,
    SETTINGS,
    SITE,
    job,
    number,
    pending,
    random_world,
    seen,
)


@pytest.mark.parametrize("modern", [False, True], ids=["22.05", "24.11"])
@pytest.mark.parametrize("seed", range(40))
def test_watts_of_a_snapshot_are_those_of_nodes_that_are_on_and_of_gpus_in_use(seed, modern):
    rows, states, total_w = random_world(random.Random(seed), modern=modern)
    _, snapshot = seen(rows, states, modern=modern)
    assert not snapshot.stale_nodes
    assert power_now_w(snapshot) == pytest.approx(total_w, abs=1)


def test_a_job_over_two_halls_is_counted_and_its_gpus_are_not_given_to_others():
    details = ["gpu:h200:4(IDX:0-3)"] * 2 + ["gpu:4090:4(IDX:0-3)"] * 4
    queue, snapshot = seen([job(50, nodes="gn[07-12]", gres_detail=details, node_count=6)])
    assert queue.left_out["50"] == "runs on gn[07-12], in several halls or on several node types"
    assert [(h.nodes, h.gpus) for h in snapshot.held] == [("gn[07-08]", 4), ("gn[09-12]", 4)]
    _, unknown = seen([job(50, nodes="gn[07-12]", tres_alloc_str="gres/gpu=24", node_count=6)])
    assert set(unknown.stale_nodes) == {f"gn{n:02d}" for n in range(7, 13)}  # which GPUs it has is not said


@pytest.mark.parametrize("kind", ["1g.10gb", "h200_1g.10gb", "nvidia_h200_mig_1g.10gb"])
def test_a_node_cut_into_14_slices_is_counted_by_its_gpus(kind):
    nodes = f'{{"nodes": [{{"name": "gn01", "state": "mixed", "gres": "gpu:{kind}:14(S:0-1)"}}]}}'
    rows = [job(n, nodes="gn01", gres_detail=[f"gpu:{kind}:1(IDX:0)"], tres_alloc_str="gres/gpu=1") for n in (1, 2)]
    rows.append(job(3, nodes="gn01", gres_detail=[f"gpu:{kind}:12(IDX:2-13)"], tres_alloc_str="gres/gpu=12"))
    queue = to_queue(parse_queue(json.dumps({"jobs": rows})), parse_nodes(nodes), SITE, SETTINGS, NOW_S)
    assert [(one.gpus, one.hall) for one in queue.jobs] == [(1, None), (1, None), (8, None)]
    fitting = fitting_jobs(SITE, queue.jobs, "queue")
    snapshot = Snapshot(NOW_S, NOW_S, 300, 2, SITE, fitting.jobs, left_out=fitting.left_out)
    snapshot = observed_nodes(snapshot, queue.down_nodes, ())
    assert power_now_w(snapshot) <= 8 * 1600 + 4 * 1200 + 8 * (1250 - 200) + 1


@pytest.mark.parametrize(
    ("text", "counts", "kind"),
    [
        ("gpu:nvidia_h100_80gb_hbm3:8(S:0-1),shard:32(S:0-1)", (8, 0, 32), "nvidia_h100_80gb_hbm3"),
        ("gpu:a100_3g.20gb:8(S:0)", (0, 8, 0), "a100_3g.20gb"),
        ("gpu:a100-sxm4-40gb:4(S:0),gpu:a100-sxm4-40gb:4(S:1)", (8, 0, 0), "a100-sxm4-40gb"),
        ("gpu:no_consume:8", (8, 0, 0), ""),
        ("gpu:h200:no_consume:8,nic:2", (8, 0, 0), "h200"),
        ("gpu:2080ti:4(IDX:0-3)", (4, 0, 0), "2080ti"),
        ("(null)", (0, 0, 0), ""),
    ],
)
def test_resources_as_sites_name_them(text, counts, kind):
    found = parse_gres(text)
    assert ((found.whole, found.mig, found.shards), found.kind) == (counts, kind)


@pytest.mark.parametrize("states", [["IDLE", "POWER_DRAIN"], ["INVALID"], ["IDLE", "NO_RESPOND"], ["IDLE", "REBOOT"]])
def test_nodes_that_take_nothing_new_draw_their_idle_power(states):
    nodes = json.dumps({"nodes": [{"name": "gn01", "state": states, "gres": "gpu:h200:8"}]})
    queue = to_queue([], parse_nodes(nodes), SITE, SETTINGS, NOW_S)
    assert ("gn01" in queue.down_nodes, queue.off_nodes) == (True, ())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"state_reason": "QOSMaxGRESPerUser"}, "waits for a limit of its account"),
        ({"state_reason": "AssocGrpGRES"}, "waits for a limit of its account"),
        ({"state_reason": "PartitionDown"}, "its partition does not start it"),
        ({"state_reason": "Dependency"}, "waits for another job"),
        ({"state_reason": "SomethingNew"}, "waits for another reason: SomethingNew"),
        ({"resv_name": "mine"}, "runs in a reservation"),
        ({"tres_per_node": "gres/shard:4"}, "asks for parts of GPUs"),
        ({"tres_per_node": "gres/gpu:1g.10gb:1"}, "asks for parts of GPUs"),
        ({"node_count": 4, "max_nodes": 4, "tres_req_str": "cpu=1,node=2"}, "asks for 2 to 4 nodes"),
        ({"node_count": 4, "max_nodes": 4, "tres_per_node": "gres/gpu:2"}, "asks for 8 GPUs on 4 nodes"),
        ({"node_count": 2, "required_nodes": "gn01"}, "asks for gn01 and other nodes beside"),
        ({"excluded_nodes": "gn[01-12]"}, "no node of the site may take it"),
        ({"tres_per_node": "gres/gpu:b200:8"}, "no node of the site may take it"),
        ({"priority": 0, "state_reason": "JobHeldUser"}, "held by its user"),
    ],
)
def test_what_no_plan_can_place_is_left_to_slurm_with_the_reason(fields, why):
    queue, _ = seen([pending(7, **fields), pending(8)])
    assert [one.job_id for one in queue.jobs] == ["8"]
    assert queue.left_out["7"].startswith(why)


def test_tasks_of_an_array_beyond_its_limit_wait_until_one_before_them_may_have_ended():
    array = {"array_job_id": number(19, modern=True), "array_max_tasks": number(2, modern=True)}
    waits = pending(19, **array, array_task_string="3-6%2")
    runs = job(20, **array, array_task_id=number(1, modern=True), nodes="gn01", gres_detail=["gpu:h200:8(IDX:0-7)"])
    queue, _ = seen([waits, runs])
    earliest = {one.job_id: one.earliest_s for one in queue.jobs}
    left_s = NOW_S - 600 + 3600
    assert earliest == {"19_1": None, "19_3": None, "19_4": left_s, "19_5": NOW_S + 3600, "19_6": left_s + 3600}


@pytest.mark.parametrize("limit", [{"set": False, "infinite": True, "number": 0}, number(30, modern=True)])
def test_a_running_job_without_limit_or_beyond_it_may_run_on(limit):
    start = number(NOW_S - 2 * 86400, modern=True)
    queue, _ = seen([job(5, nodes="gn05", gres_detail=["gpu:h200:8"], time_limit=limit, start_time=start)])
    assert queue.jobs[0].duration_s == 86_400.0


def test_whole_nodes_are_all_of_their_gpus():
    for shared in ({"shared": "none"}, {"exclusive": ["true"]}):
        queue, _ = seen([pending(1, tres_per_node="gres/gpu:h200:1", **shared)])
        assert queue.jobs[0].gpus == 8


def test_a_job_of_several_partitions_counts_whole_nodes_where_one_of_them_gives_no_others():
    text = "PartitionName={} Nodes=gn[01-12] OverSubscribe={} State=UP\n"
    rules = PlacementRules(parse_partitions(text.format("gpu", "NO") + text.format("whole", "EXCLUSIVE")))
    rows = [pending(n, partition=name, tres_per_node="gres/gpu:h200:1") for n, name in ((1, "gpu"), (2, "gpu,whole"))]
    records = parse_queue(json.dumps({"jobs": rows}))
    queue = to_queue(records, [], SITE, SETTINGS, NOW_S, rules=rules)
    assert [one.gpus for one in queue.jobs] == [1, 8]


def test_partitions_and_reservations_say_where_a_job_may_start():
    partitions = parse_partitions(
        "PartitionName=right AllowGroups=ALL Nodes=gn[07-12] State=UP TotalNodes=6\n"
        "PartitionName=gone Nodes=gn[01-12] State=DOWN\nPartitionName=none Nodes=(null) State=UP\n"
    )
    assert partitions["right"].nodes == {f"gn{n:02d}" for n in range(7, 13)}
    assert not partitions["gone"].is_up
    reserved = parse_reserved_nodes(
        "ReservationName=powerhall_kw_1 StartTime=2026-11-29T01:58:42 EndTime=2026-11-29T09:58:00 Nodes=(null)\n"
        "ReservationName=mnt StartTime=2026-11-29T02:11:44 EndTime=2026-11-29T02:21:44 Nodes=gn05 Users=root\n"
    )
    assert [(one.name, one.nodes, one.end_s - one.start_s) for one in reserved] == [("mnt", {"gn05"}, 600.0)]


@pytest.mark.parametrize(
    ("text", "whole", "slices", "kind"),
    [
        ("gres:gpu:4090:8", 8, 0, "4090"),
        ("gres/gpu=8,gres/gpu:4090=8", 8, 0, "4090"),
        ("gpu:2080ti:4", 4, 0, "2080ti"),
        ("gpu:1080ti:2(IDX:0-1)", 2, 0, "1080ti"),
        ("gres/gpu:3090=2", 2, 0, "3090"),
        ("gres/gpu:1g.10gb:3", 0, 3, "1g.10gb"),
        ("gpu:h200:0(IDX:N/A),shard:h200:2(IDX:0-1),mps:0", 0, 0, "h200"),
        ("gpu:a:2(IDX:0,3-4),gpu:b:1", 3, 0, "a"),
    ],
)
def test_types_of_gpus_may_begin_with_a_digit(text, whole, slices, kind):
    gres = parse_gres(text)
    assert (gres.whole, gres.mig, gres.kind) == (whole, slices, kind)


WHOLE = {"nodes": "gn05", "gres_detail": ["gpu:h200:8(IDX:0-7)"], "tres_alloc_str": "gres/gpu=8"}
USED_W = 8 * (1250.0 - 200.0)


def drawn_w(*rows):
    """Return what running jobs add to the power of an idle site, in W."""
    _, snapshot = seen(list(rows))
    return power_now_w(snapshot) - power_now_w(seen([])[1])


@pytest.mark.parametrize("nodes", ["gn[01-", "", None, [], {"name": "gn01"}])
def test_a_running_job_whose_nodes_cannot_be_read_is_counted_where_it_draws_most(nodes):
    row = job(7, **WHOLE | {"nodes": nodes})
    assert drawn_w(row) == pytest.approx(USED_W, abs=1)
    queue, snapshot = seen([row])
    assert queue.left_out["7"].startswith("runs on nodes that are not known")
    assert len(snapshot.stale_nodes) == 1
    assert not snapshot.jobs


@pytest.mark.parametrize(
    "state",
    [[], "", None, "SOMETHINGNEW", ["SOMETHINGNEW", "ELSE"], "POWER_UP_NODE", ["POWER_UP_NODE"], "RUNNING+COMPLETING",
     "running", "RUNNING|SIGNALING", ["PENDING", "COMPLETING"], ["REQUEUED"]],
)  # fmt: skip
def test_a_job_on_nodes_in_a_state_that_is_not_known_has_them(state):
    assert drawn_w(job(7, **WHOLE, job_state=state)) == pytest.approx(USED_W, abs=1)


@pytest.mark.parametrize("state", ["COMPLETED", ["CANCELLED"], ["NODE_FAIL"], ["TIMEOUT", "SOMETHINGNEW"], "PREEMPTED"])
def test_a_job_that_has_ended_draws_nothing(state):
    assert drawn_w(job(7, **WHOLE, job_state=state)) == 0


@pytest.mark.parametrize(
    ("detail", "tres"),
    [
        ([], "cpu=8,gres/gpu=8.00"),
        ([], "cpu=8,gres/gpu=7.5"),
        ([], "gres/GPU=8"),
        ([], "cpu=8|gres/gpu=8"),
        (["gpu:h200:2(IDX:0-1)"], "gres/gpu=8,gres/gpu:h200=8"),
        (["gpu:h200:8(IDX:0-7)"], "gres/gpu=2"),
        (["gpu:h200(IDX:0-7)"], ""),
        (["gpu(IDX:0-3,4-7)"], "cpu=1"),
        (["GPU:h200:8"], ""),
    ],
)
def test_gpus_are_counted_however_they_are_written_and_the_larger_of_two_counts(detail, tres):
    row = job(7, nodes="gn05", gres_detail=detail, tres_alloc_str=tres)
    assert drawn_w(row) == pytest.approx(USED_W, abs=1)


@pytest.mark.parametrize("whole", [{"shared": "none"}, {"exclusive": ["true"]}], ids=["22.05", "24.11"])
@pytest.mark.parametrize("tres", ["cpu=64,node=2", "cpu=64,node=2,gres/gpu=1"])
def test_nodes_that_an_exclusive_job_has_take_nothing_new_while_its_gpus_are_fewer(whole, tres):
    queue, snapshot = seen([job(1, nodes="gn[02-03]", node_count=2, tres_alloc_str=tres, **whole), pending(2)])
    assert set(queue.down_nodes) == {"gn02", "gn03"}
    assert set(snapshot.down_nodes) == {"gn02", "gn03"}
    assert not snapshot.off_nodes
    shared, _ = seen([job(1, nodes="gn[02-03]", node_count=2, tres_alloc_str=tres), pending(2)])
    assert not shared.down_nodes
    full, _ = seen(
        [job(1, nodes="gn02", tres_alloc_str="gres/gpu=8", **whole), job(3, state="COMPLETED", nodes="gn04", **whole)]
    )
    assert not full.down_nodes


@pytest.mark.parametrize("job_id", [7, None, "text", 0])
def test_rows_of_one_id_are_separate_allocations(job_id):
    rows = [job(job_id, **WHOLE), job(job_id, **WHOLE | {"nodes": "gn06"}), job(job_id, **WHOLE | {"nodes": "gn07"})]
    assert drawn_w(*rows) == pytest.approx(3 * USED_W, abs=1)
    assert drawn_w(rows[0], rows[0]) == pytest.approx(USED_W, abs=1)  # the same row again is the same allocation
    assert drawn_w(job(job_id, state="COMPLETED"), rows[0]) == pytest.approx(USED_W, abs=1)
    assert drawn_w(pending(job_id), rows[0]) == pytest.approx(USED_W, abs=1)
    queue, snapshot = seen(rows)
    assert {one.job_id for one in snapshot.jobs} == ({"7"} if job_id == 7 else set())
    assert len({one.job_id for one in queue.jobs}) == 3


def test_a_waiting_job_without_an_id_is_left_to_slurm():
    queue, _ = seen([pending(None), pending(8)])
    assert [one.job_id for one in queue.jobs] == ["8"]


@pytest.mark.parametrize(
    ("slices", "has", "gpus"),
    [
        (["1g.18gb:8(IDX:0,7,14,21,28,35,42,49)"], "gpu:1g.18gb:56", 8),
        (["1g.18gb:7(IDX:0-6)"], "gpu:1g.18gb:56", 1),
        (["1g.18gb:2(IDX:6-7)"], "gpu:1g.18gb:56", 2),
        (["1g.18gb:3(IDX:0-2)", "1g.18gb:4(IDX:3-6)"], "gpu:1g.18gb:56", 1),
        (["1g.18gb:2"], "gpu:1g.18gb:56", 2),
        (["1g.18gb:3(IDX:4-6)"], "gpu:h200:4,gpu:1g.18gb:28", 3),
        (["1g.18gb:9(IDX:4-12)"], "gpu:h200:4,gpu:1g.18gb:28", 4),
    ],
)
def test_mig_slices_count_the_gpus_that_they_are_on(slices, has, gpus):
    """By their number where every GPU has the same slices; otherwise each may be on a GPU of its own."""
    rows = [
        job(n, nodes="gn01", tres_alloc_str=f"gres/gpu={n}", gres_detail=[f"gpu:{detail}"])
        for n, detail in enumerate(slices, 1)
    ]
    _, snapshot = seen(rows, gres_of={"hgx": has})
    assert power_now_w(snapshot) - power_now_w(seen([])[1]) == pytest.approx(gpus * 1050.0)


@pytest.mark.parametrize(
    ("state", "is_closed"),
    [
        ("IDLE+DRAIN", True), ("idle*", True), ("mix-", False), ("alloc", False), ("drng", True), ("DOWN~", False),
        (["MIXED", "DRAIN"], True), ("boot^", True), ("inval", True), ([], True), ("", True), ("resv", False),
        ("mixed@", True), ("maint", True), ("failg", True), ("idle%", False), ("alloc+", False),
    ],
)  # fmt: skip
def test_states_of_nodes_are_understood_in_every_form(state, is_closed):
    rows = [{"name": "gn01", "state": state, "gres": "gpu:h200:8"}]
    queue = to_queue([], parse_nodes(json.dumps({"nodes": rows})), SITE, SETTINGS, NOW_S)
    assert ("gn01" in queue.down_nodes) == is_closed
    assert ("gn01" in queue.off_nodes) == (state == "DOWN~")


@pytest.mark.parametrize(
    ("text", "charge", "has_choice"),
    [("kw:10,x", 10, False), ("x:1;kw=4;kw:2", 6, False), ("kw:10|x:2", 0, True), ("x|y", 0, True), ("", 0, False)],
)
def test_licences_are_added_up_and_alternatives_are_left_alone(text, charge, has_choice):
    (record,) = parse_queue(json.dumps({"jobs": [pending(1, licenses=text, tres_per_node="gres/gpu:8")]}))
    assert (record.licences.get("kw", 0), record.has_licence_choice) == (charge, has_choice)
    change = decide(record, DesiredJob("1", {"lic": "10"}, "fits"), SETTINGS, NOW_S)
    assert isinstance(change, Change)
    assert change.values == ({} if has_choice or charge == 10 else {"lic": "10"})


@pytest.mark.parametrize("sockets", [2, {"minimum": 1, "maximum": 2}])
def test_gpus_per_socket_are_those_of_all_sockets_of_a_node(sockets):
    """Slurm takes --sockets-per-node as the least: 2 per socket on one were 4 on a real node of two."""
    asks = {"tres_per_node": "", "tres_per_socket": "gres/gpu:2", "sockets_per_node": number(1, modern=True)}
    row = {"name": "gn01", "state": ["IDLE"], "gres": "gpu:h200:8", "sockets": sockets}
    nodes = parse_nodes(json.dumps({"nodes": [row]}))
    queue = to_queue(parse_queue(json.dumps({"jobs": [pending(1, **asks)]})), nodes, SITE, SETTINGS, NOW_S)
    assert [one.gpus for one in queue.jobs] == [4]


def test_a_job_without_limit_is_not_planned_ahead_of_a_reservation():
    start, end = ("2027-11-28T10:00:00", "2027-11-29T10:00:00")
    text = f"ReservationName=m StartTime={start} EndTime={end} Nodes=gn[01-08] Flags=MAINT,SPEC_NODES\n"
    rules = PlacementRules({}, parse_reserved_nodes(text))
    for limit, allowed in ((number(60, modern=True), None), ({"set": False, "infinite": True}, "gn[09-12]")):
        row = pending(1, time_limit=limit, tres_per_node="gres/gpu:8")
        queue = to_queue(parse_queue(json.dumps({"jobs": [row]})), [], SITE, SETTINGS, NOW_S, rules=rules)
        assert [one.allowed_nodes for one in queue.jobs] == [allowed]
