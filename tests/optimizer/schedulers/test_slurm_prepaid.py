"""GPUs that are shared on nodes whose full power is paid from the pool, on a real cluster: budget, charges, plans."""

import time
from contextlib import suppress

import msgspec
import pytest

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall_optimizer import api
from powerhall_optimizer.schedulers.slurm.reservations import wanted
from powerhall_optimizer.schedulers.slurm.slurm_settings import check_settings
from powerhall_optimizer.schedulers.slurm.writer import SlurmReader, SlurmWriter
from rigs.slurm_mixed import GPU_W, IDLE_W, POOL_W, PREPAID, SETTINGS, SITE, gpus_in_use, plan_of

pytestmark = [pytest.mark.rig, pytest.mark.slow]

PAID_W = 8 * (GPU_W - 100)
"""What the prepaid node draws above its idle power."""
BY_POOL = msgspec.structs.replace(SETTINGS, prepaid=PREPAID)


@pytest.fixture
def slurm(mixed_slurm):
    return mixed_slurm


def read(tmp_path, limit_w):
    parts = SITE.format(limit=limit_w).replace('gpu = "H200"', 'gpu = "H200"\ngpu_parts = 4\ngpu_fill = true')
    (tmp_path / "site.toml").write_text(parts)
    return api.read_site(tmp_path / "site.toml")


def licences(slurm, job):
    line = slurm.run("scontrol", "-o", "show", "job", job)
    return int(line.partition("Licenses=kw:")[2].partition(" ")[0] or 0)


@pytest.mark.parametrize(
    ("options", "kw"),
    [
        (("-p", "shared", "--gres=shard:1"), 0),
        (("-p", "shared", "--gres=gpu:8"), 0),
        (("-p", "shared", "--exclusive", "--gres=gpu:1"), 0),
        (("-p", "shared,right", "--gres=shard:1"), 2),  # gn07 has shards too
        (("-p", "sets", "--gres=gpu:8"), 10),  # a node set may be any nodes
        (("-w", PREPAID, "--gres=shard:1"), 2),  # the partition has other nodes
        (("-w", PREPAID, "--gres=gpu:8"), 10),
    ],
)
def test_what_only_prepaid_nodes_can_take_is_charged_nothing(slurm, options, kw):
    job = slurm.submit(*options, "-t", "5", "--begin=now+900", user="nobody")
    assert licences(slurm, job) == kw
    if not kw:
        for _ in range(10):  # 24.11 may be busy with the job still: "Resource temporarily unavailable"
            with suppress(RuntimeError):
                slurm.run("scontrol", "update", f"jobid={job}", "Partition=gpu", user="nobody")
                break
            time.sleep(0.3)
        assert licences(slurm, job) >= 2


def test_shards_fill_their_gpus_and_the_rest_of_the_pool_is_theirs_who_pay(slurm):
    shards = [slurm.submit("-p", "shared", "--gres=shard:1", "-t", "5") for _ in range(32)]
    for _ in range(8):
        slurm.submit("-x", PREPAID, "--gres=gpu:8", "-t", "5")
    deadline, most_w = time.monotonic() + 20, 0
    while time.monotonic() < deadline:
        used = gpus_in_use(slurm)
        most_w = max(most_w, sum(GPU_W for node, _ in used if node != PREPAID))
        states = slurm.states()
        if most_w == POOL_W and all(states[job] == "RUNNING" for job in shards):
            break
        time.sleep(0.3)
    assert most_w == POOL_W
    assert [states[job] for job in shards] == ["RUNNING"] * 32
    assert len({number for node, number in used if node == PREPAID}) == 8
    left = shards[::4]  # one of each GPU, or several of some: what is left open is paid for
    slurm.run("scancel", *(job for job in shards if job not in left))
    slurm.submit("-x", PREPAID, "--gres=gpu:8", "-t", "5")
    time.sleep(2)
    assert sum(GPU_W for node, _ in gpus_in_use(slurm) if node != PREPAID) <= POOL_W


def test_a_plan_places_them_without_licences_and_keeps_the_pool_for_them_in_a_cut(slurm, tmp_path):
    place = read(tmp_path, POOL_W + IDLE_W + PAID_W)
    parts = [slurm.submit("-p", "shared", "--gres=shard:1", "-t", "5", "--begin=now+3") for _ in range(8)]
    whole = [slurm.submit("-p", "right", "-x", PREPAID, "--gres=gpu:8", "-t", "5", "--begin=now+3") for _ in range(2)]
    plan = plan_of(place, SlurmReader(place.site, BY_POOL).read(), slot_s=10)
    done = SlurmWriter(BY_POOL).apply(plan)
    assert done.failed == []
    assert not [command for command in done.commands if command.subject == "budget"]
    for job in (*parts, *whole):
        slurm.wait(job, "RUNNING", 75)
    assert [licences(slurm, job) for job in (*parts, *whole)] == [0] * 8 + [10, 10]
    again = plan_of(place, SlurmReader(place.site, BY_POOL).read(), slot_s=10)
    assert len(again.assignments) == 10
    assert not [c for c in SlurmWriter(BY_POOL).apply(again).commands if "icenses" in c.text]
    cut = read(tmp_path, 40_000 + IDLE_W + PAID_W)
    low = plan_of(cut, SlurmReader(cut.site, BY_POOL).read(), slot_s=10)
    (line,) = [c.text for c in SlurmWriter(BY_POOL).apply(low).commands if c.subject == "budget"]
    assert line.endswith("Licenses=kw:20 Flags=LICENSE_ONLY Users=root")


def test_prepaid_nodes_must_be_those_of_the_site(tmp_path):
    place = read(tmp_path, POOL_W)
    plan = api.plan(place, (), start_s=time.time(), horizon="4 h", seconds=0.2)
    wrong = msgspec.structs.replace(SETTINGS, prepaid="gn[08-99]")
    with pytest.raises(ConfigError, match=r"slurm\.prepaid: 'gn13': must be a node of the site"):
        wanted(plan, wrong, 60, time.time())
    with pytest.raises(Rejected, match=r"slurm\.prepaid: 'gn\[08'"):
        check_settings(msgspec.structs.replace(SETTINGS, prepaid="gn[08"), "settings")
