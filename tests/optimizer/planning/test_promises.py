"""What `explain` says would start a job does start it: the change is made in the files, and planned again.

`PROVE` in the environment is the number of waiting jobs (make prove-reasons: 200).
"""

import os
import random

from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer import api
from powerhall_optimizer.planning.explanation import job_explanation
from powerhall_optimizer.planning.promises import Promise
from powerhall_optimizer.round.planned_again import PlannedAgain
from rigs.operated_site import START_S, edited, random_case

JOBS = int(os.environ.get("PROVE", "8"))
SETTINGS = api.RoundSettings(workers=1, work_rate=0.05)
"""Little work, so that no deadline cuts a plan short on a busy machine."""
SECONDS = 0.3
PER_SITE = 4


def planned(site, jobs, path, previous=None):
    inputs = api.read_site(site.write(path / "site.toml"))
    return api.plan(inputs, jobs, start_s=START_S, horizon="8h", seconds=SECONDS, settings=SETTINGS, previous=previous)


def start_of(plan, job_id: str) -> int | None:
    return next((entry.start_s for entry in plan.assignments if entry.job_id == job_id), None)


def broken_promises(seed: int, path, count: int) -> tuple[int, int, int, list[str]]:
    """Explain up to `count` waiting jobs of a random site; return how many, promises, those alone, and what broke."""
    draw = random.Random(seed)
    site, jobs = random_case(draw)
    try:
        plan = planned(site, jobs, path)
    except PowerhallError:
        return 0, 0, 0, []
    told = [entry.job_id for entry in plan.waiting]
    draw.shuffle(told)
    said = alone = 0
    broken = []
    for job_id in told[:count]:
        found = job_explanation(plan, job_id, "plan", PlannedAgain(plan, SETTINGS, 600.0))
        for promise in found.would_start:
            alone += promise.alone
            said += not promise.alone
            if not promise.alone:
                broken += _broken(site, jobs, plan, job_id, promise, path)
    return min(count, len(told)), said, alone, broken


def _broken(site, jobs, plan, job_id: str, promise: Promise, path) -> list[str]:
    """Make the change in the files and plan again; a plan that a deadline cut short does not count."""
    changed = edited(site, jobs, promise.items)
    found = []
    for name, previous in (("from the plan in force", plan), ("from nothing", None)):
        tries = (planned(*changed, path, previous) for _ in range(4))
        again = next((made for made in tries if not made.cut_short), None)
        if again is None:
            continue
        start_s = start_of(again, job_id)
        if start_s is None or start_s > promise.by_s:
            found.append(f"{job_id} {name}: {promise.text()} starts at {start_s}")
    return found


def test_what_would_start_a_job_starts_it(tmp_path):
    explained = said = alone = 0
    broken = []
    seed = 0
    while explained < JOBS:
        found = broken_promises(seed, tmp_path, min(PER_SITE, JOBS - explained))
        explained, said, alone = explained + found[0], said + found[1], alone + found[2]
        broken += [f"seed {seed}: {text}" for text in found[3]]
        seed += 1
    print(f"explained={explained} sites={seed} would_start={said} alone={alone} broken={len(broken)}")
    assert broken == []
    assert said >= 1
