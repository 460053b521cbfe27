"""The same inputs give the same plan to the byte, as long as no deadline cuts its work short."""

import multiprocessing

import msgspec

from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan


def _spin() -> None:
    while True:
        pass


def _body(snapshot):
    """The encoded plan without the seconds that it took; much time for little work, so that no deadline cuts."""
    settings = RoundSettings(target_gap=0.0, work_rate=0.004)
    plan = make_plan(snapshot, settings, 400.0, created_s=snapshot.start_s, log=Log(quiet=True))
    assert plan.cut_short == ()
    assert plan.work, "the plan says what was done"
    return msgspec.json.encode(msgspec.structs.replace(plan, solve_s=0.0))


def test_a_busy_machine_makes_the_same_plan(snapshot):
    alone = _body(snapshot)
    load = [multiprocessing.get_context("fork").Process(target=_spin, daemon=True) for _ in range(3)]
    for process in load:
        process.start()
    try:
        busy = _body(snapshot)
    finally:
        for process in load:
            process.kill()
            process.join()
    assert alone == busy
