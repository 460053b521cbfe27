"""Two sites and a queue whose jobs may run at one, both or none of them."""

import random

from powerhall.jobs import Job

START_S = 1_700_000_100
SECOND = """
[site]
name = "fra"
power_limit = "120 kW"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
modes = [{name = "full", gpu_power = "1.2 kW", speed = 1.0}, {name = "low", gpu_power = "0.7 kW", speed = 0.75}]

[[halls]]
name = "b"
rows = [{name = "r1", racks = [{node_type = "h100", count = 3, nodes = 4}]}]
cooling = [{kind = "fixed", capacity = "150 kW", cop = 5.0}]
"""


def queue(count=60, seed=5):
    draw = random.Random(seed)
    return tuple(
        Job(
            f"j{i}",
            draw.choice([1, 2, 4, 8, 16, 32]),
            draw.randint(20, 400) * 60.0,
            START_S + draw.randint(-5000, 20_000),
            weight=draw.choice([1.0, 2.0]),
            sites=draw.choice([(), ("phx",), ("fra",), ("phx", "fra"), ("tokyo",)]),
            node_types=("h100",),
        )
        for i in range(count)
    )


def where(plan):
    """Site of every assigned job."""
    return {a.job_id: part.snapshot.site.name for part in plan.plans for a in part.assignments}
