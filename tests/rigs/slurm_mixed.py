"""A real cluster of two kinds of nodes (`rigs.slurm.mixed`): its site, plans for it, and what its jobs hold."""

import re
import time

from powerhall.hostlist import expand
from powerhall_optimizer import api
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.schedulers.job_fields import JobFields
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

GPU_W = 1250
POOL_W = 60_000
"""What the licences stand for: the budget less the idle power of the nodes."""
IDLE_W = 12 * 8 * 100
PREPAID = "gn08"
"""Its full power is beside POOL_W."""
SETTINGS = SlurmSettings(round_s=5, fields=JobFields(node_types={"h200": "hgx", "4090": "pcie"}))
SITE = """
[site]
name = "plant"
power_limit = "{limit} W"
[node_types.hgx]
gpu = "H200"
gpus = 8
idle_power = "800 W"
max_power = "10 kW"
modes = [{{ name = "full", gpu_power = "1250 W", speed = 1.0, gpu_power_limit = "700 W" }}]
[node_types.pcie]
gpu = "4090"
gpus = 8
idle_power = "800 W"
max_power = "10 kW"
modes = [{{ name = "full", gpu_power = "1250 W", speed = 1.0, gpu_power_limit = "450 W" }}]
[[halls]]
name = "hall1"
rows = [ {{ name = "a", racks = [ {{ node_type = "hgx", name = "r1", nodes = "gn[01-08]" }} ] }} ]
[[halls]]
name = "hall2"
rows = [ {{ name = "a", racks = [ {{ node_type = "pcie", name = "r1", nodes = "gn[09-12]" }} ] }} ]
"""


def job_lines(slurm):
    """Return a line per job of `scontrol show job -d`."""
    return slurm.run("scontrol", "-o", "-d", "show", "job").splitlines()


def gpus_in_use(slurm):
    """Return the GPUs of running jobs as (node, number), from the text of `scontrol show job -d`."""
    used = set()
    for line in job_lines(slurm):
        if not re.search(r"JobState=(RUNNING|COMPLETING|SUSPENDED)", line):
            continue
        for nodes, gres in re.findall(r" Nodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)", line):
            for parts in re.findall(r"\(([0-9/,]+)\)", gres):  # 24.11: shards of the job on each GPU
                shares = list(enumerate(parts.split(",")))
                used |= {(node, number) for node in expand(nodes) for number, share in shares if share[0] != "0"}
            for index in re.findall(r"IDX:([0-9,-]+)", gres):
                for part in index.split(","):
                    low, _, high = part.partition("-")
                    numbers = range(int(low), int(high or low) + 1)
                    used |= {(node, number) for node in expand(nodes) for number in numbers}
    return used


def plan_of(site, queue, seconds=1.0, in_s=0.0, slot_s=60):
    """Return a plan of 240 slots."""
    return api.plan(
        site, queue.jobs, start_s=time.time() + in_s, horizon=f"{4 * slot_s} min", seconds=seconds,
        settings=RoundSettings(slot_s=slot_s), down_nodes=queue.down_nodes, off_nodes=queue.off_nodes,
    )  # fmt: skip
