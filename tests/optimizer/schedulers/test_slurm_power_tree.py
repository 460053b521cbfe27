"""The site's limits as layers of a real Slurm 25.11 or later (`make test-slurm26`): enforced where jobs are placed."""

import re
import time

import pytest

from powerhall.hostlist import expand
from powerhall_optimizer import api
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.schedulers.job_fields import JobFields
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.writer import SlurmReader, SlurmWriter
from rigs import slurm as rig

pytestmark = [pytest.mark.rig, pytest.mark.slow]

GPU_W, IDLE_W = 1250, 800
SETTINGS = SlurmSettings(round_s=30, fields=JobFields(node_types={"h200": "hgx"}))
LIMITS = {"plant": 69_600, "hall1": 56_400, "rack1": 33_200, "hall2": 23_200}
"""In nodes that may run eight GPUs: the site six, hall1 five, its first rack three, hall2 two."""
SITE = """
[site]
name = "plant"
power_limit = "{plant} W"
[node_types.hgx]
gpu = "H200"
gpus = 8
idle_power = "800 W"
max_power = "10 kW"
modes = [{{ name = "full", gpu_power = "1250 W", speed = 1.0, gpu_power_limit = "700 W" }}]
[[halls]]
name = "hall1"
power_limit = "{hall1} W"
rows = [ {{ name = "a", racks = [
  {{ node_type = "hgx", name = "r1", nodes = "gn[01-04]", power_limit = "{rack1} W" }},
  {{ node_type = "hgx", name = "r2", nodes = "gn[05-08]" }} ] }} ]
[[halls]]
name = "hall2"
power_limit = "{hall2} W"
rows = [ {{ name = "a", racks = [ {{ node_type = "hgx", name = "r1", nodes = "gn[09-12]" }} ] }} ]
"""
EVENT = """
[[events]]
zone = "plant"
start = {start}
duration = "20 min"
power_limit = "{watts} W"
"""
PLACES = {
    "plant": set(expand("gn[01-12]")),
    "hall1": set(expand("gn[01-08]")),
    "rack1": set(expand("gn[01-04]")),
    "hall2": set(expand("gn[09-12]")),
}


def with_places(folder):
    """Add partitions for places of the site, take the flat licence out, leave somebody else's resource in the file."""
    conf = (folder / "slurm.conf").read_text().replace("Licenses=kw:60\n", "")
    for name, nodes in (("rack1", "gn[01-04]"), ("hall2", "gn[09-12]")):
        conf += f"PartitionName={name} Nodes={nodes} MaxTime=INFINITE State=UP OverSubscribe=NO\n"
    (folder / "slurm.conf").write_text(conf)
    other = '---\n- resource: desks\n  mode: MODE_1\n  layers:\n    - nodes: ["gn[01-12]"]\n      count: 5\n'
    (folder / "resources.yaml").write_text(other)


@pytest.fixture(scope="module")
def tree_cluster(root, tmp_path_factory):
    """A cluster whose slurm.conf has no licence for power."""
    if reason := rig.missing():
        pytest.skip(reason)
    if (version := rig.installed_version()) < (25, 11):
        pytest.skip(f"Slurm {version[0]}.{version[1]:02d} has no hierarchical resources of mode 3: make test-slurm26")
    text = (root / "deploy/slurm/job_submit.lua").read_text()
    for old, new in (
        ("h200 = 1275, default = 1275", f"h200 = {GPU_W}, default = {GPU_W}"),
        ("local IDLE_GPU_W = 0", f"local IDLE_GPU_W = {IDLE_W // 8}"),
        ("local BUDGET = 0", "local BUDGET = 60"),
    ):
        assert old in text
        text = text.replace(old, new)
    lua = tmp_path_factory.mktemp("lua") / "job_submit.lua"
    lua.write_text(text)
    with rig.start(lua, nodes=12, licences="kw:60", change=with_places) as running:
        yield running


@pytest.fixture
def slurm(tree_cluster, monkeypatch):
    """The cluster without jobs, and its commands on the PATH of this process."""
    monkeypatch.setenv("SLURM_CONF", tree_cluster.env["SLURM_CONF"])
    monkeypatch.setenv("PATH", tree_cluster.env["PATH"])
    tree_cluster.clear()
    yield tree_cluster
    tree_cluster.clear()


@pytest.fixture
def round_(tmp_path):
    """One round under changed limits, or in an event: read, plan, write; returns the plan and the report."""

    def run(event_w=None, **limits):
        text = SITE.format(**(LIMITS | limits))
        if event_w is not None:
            text += EVENT.format(start=int(time.time()) - 60, watts=event_w)
        (tmp_path / "site.toml").write_text(text)
        site = api.read_site(tmp_path / "site.toml")
        queue = SlurmReader(site.site, SETTINGS).read()
        settings = RoundSettings(slot_s=60)
        plan = api.plan(
            site, queue.jobs, start_s=time.time(), horizon="1h", seconds=0.5, settings=settings,
            down_nodes=queue.down_nodes, off_nodes=queue.off_nodes,
        )  # fmt: skip
        return plan, SlurmWriter(SETTINGS).apply(plan)

    return run


def busy_nodes(slurm):
    """Return the GPUs in use on each node, from the text of `scontrol show job -d`."""
    used = {}
    for line in slurm.run("scontrol", "-o", "-d", "show", "job").splitlines():
        if re.search(r"JobState=(RUNNING|COMPLETING)", line):
            for nodes, gres in re.findall(r" Nodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=gpu:h200:(\d+)", line):
                for node in expand(nodes):
                    used[node] = used.get(node, 0) + int(gres)
    return used


def watts(slurm):
    """Return the power of each place: idle nodes, and above that what GPUs in use draw. Knows nothing of the driver."""
    used = busy_nodes(slurm)
    return {
        place: sum(IDLE_W + used.get(node, 0) * (GPU_W - IDLE_W // 8) for node in nodes)
        for place, nodes in PLACES.items()
    }


def settled(slurm, seconds=3.0, limits=LIMITS):
    """Sample for some seconds: no place is ever over its limit; returns the full nodes of each place at the end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert {place: w for place, w in watts(slurm).items() if w > limits[place]} == {}
        time.sleep(0.2)
    used = busy_nodes(slurm)
    return {place: sum(used.get(node, 0) for node in nodes) // 8 for place, nodes in PLACES.items()}


def held(slurm):
    rows = slurm.run("squeue", "-h", "-t", "PD", "-o", "%i %Q %r").splitlines()
    return [row for row in rows if re.search(r" 0 |BadConstraints|no longer valid", row)]


def layers(slurm):
    text = slurm.run("scontrol", "-o", "show", "lic")
    found = re.findall(r"LicenseName=kw Total=(\d+) .*Nodes=(\S+) Mode=3", text)
    return {nodes: int(total) for total, nodes in found}


def test_what_is_over_the_share_of_a_rack_a_hall_or_the_site_waits_although_others_have_room(slurm, round_):
    _, report = round_()
    assert report.failed == []
    assert [layers(slurm)[nodes] for nodes in ("gn[01-12]", "gn[01-08]", "gn[01-04]", "gn[09-12]")] == [60, 50, 30, 20]
    assert "resource: desks" in (slurm.folder / "resources.yaml").read_text()
    full = ("-N1", "--gpus-per-node=8", "-t", "10")
    for _ in range(4):
        slurm.submit(*full, "-p", "rack1")
    assert settled(slurm)["rack1"] == 3
    for _ in range(4):
        slurm.submit(*full, "-p", "hall2")
    assert settled(slurm) == {"plant": 5, "hall1": 3, "rack1": 3, "hall2": 2}
    for _ in range(3):
        slurm.submit(*full)
    assert settled(slurm) == {"plant": 6, "hall1": 4, "rack1": 3, "hall2": 2}, "the site has no more"
    assert held(slurm) == []


def test_a_cut_lowers_the_counts_and_the_end_of_a_job_starts_no_other(slurm, round_):
    assert round_()[1].failed == []
    jobs = [slurm.submit("-N1", "--gpus-per-node=8", "-t", "10") for _ in range(8)]
    assert settled(slurm)["plant"] == 6
    cut = LIMITS | {"plant": 39_600}  # three nodes
    _, report = round_(plant=cut["plant"])
    assert report.failed == []
    assert [c.text for c in report.commands if c.subject == "power tree"][-1] == "scontrol reconfigure"
    assert layers(slurm)["gn[01-12]"] == 30
    running = [job for job in jobs if slurm.states()[job] == "RUNNING"]
    slurm.run("scancel", *running[:4])
    deadline = time.monotonic() + 10
    while sum(busy_nodes(slurm).values()) > 16:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for _ in range(2):  # of users who do not know the plan
        slurm.submit("-N1", "--gpus-per-node=8", "-t", "10")
    assert settled(slurm, limits=cut)["plant"] == 3
    assert held(slurm) == []
    plan, report = round_(plant=cut["plant"])
    assert [c for c in report.commands if c.subject == "power tree"] == []
    assert SlurmWriter(SETTINGS).apply(plan).commands == []


def test_a_budget_without_room_for_one_node_starts_nothing_and_nobody_is_held(slurm, round_):
    begun = time.monotonic()
    assert round_()[1].failed == []
    begin_s = 3 + int(3 * (time.monotonic() - begun))  # after the next round too, on this machine
    jobs = [slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", f"--begin=now+{begin_s}") for _ in range(3)]
    _, report = round_(event_w=12_000)
    assert report.failed == []
    assert settled(slurm, begin_s + 3)["plant"] == 0
    later = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10")  # not refused
    assert settled(slurm)["plant"] == 0
    assert held(slurm) == []
    _, report = round_()
    assert report.failed == []
    assert "powerhall_closed" not in slurm.run("scontrol", "-o", "show", "reservation")
    for job in (*jobs, later):
        slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)  # one may run already
        slurm.wait(job, "RUNNING")
    assert settled(slurm)["plant"] == 4


def test_every_node_is_charged_the_most_that_it_may_give(slurm, round_):
    assert round_()[1].failed == []
    kw = {
        ("-N2", "--gpus-per-node=8"): 10,
        ("--gpus=12", "-N2"): 10,
        ("-N1", "--gpus-per-node=1"): 2,
        ("-N1", "--exclusive", "--gpus-per-node=1"): 10,
        ("-n4", "--gpus-per-task=1"): 5,
    }
    for options, count in kw.items():
        job = slurm.submit(*options, "-t", "5", "--begin=now+900")
        assert f"Licenses=kw:{count} " in slurm.run("scontrol", "-o", "show", "job", job), options
    with pytest.raises(RuntimeError, match="needs 80 kw, the budget is 60 kw"):
        slurm.submit("-N8", "--gpus-per-node=8", "-t", "10")


def test_a_file_that_cannot_be_written_or_is_not_taken_is_one_line_and_slurm_goes_on(slurm, round_, monkeypatch):
    assert round_()[1].failed == []
    before = (slurm.folder / "resources.yaml").read_text()
    from powerhall_optimizer.schedulers.slurm import resources_file

    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(resources_file, "replace_text", refuse)
        _, report = round_(plant=39_600)
    (failed,) = report.failed
    assert "resources.yaml: Permission denied: run schedule beside slurmctld as its user" in failed.error
    assert "\n" not in failed.error
    assert (slurm.folder / "resources.yaml").read_text() == before
