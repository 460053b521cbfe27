"""Several shed events at once: none waits long behind another, and none acts after it was cancelled meanwhile."""

import json

import msgspec
import pytest

from powerhall.runtime.errors import Retryable
from powerhall.runtime.log import Log
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_optimizer.shed.signals import parse_signals

NOW_S = 1_800_000_000.0
GOOD = {"event_id": "dr-1", "start": NOW_S, "duration": "1 h", "power_limit": "60 MW"}


class Clock:
    def __init__(self):
        self.now_s = NOW_S

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def parse(event):
    return parse_signals(json.dumps(event).encode(), "s", "phx", NOW_S)


def manager_of(folder, act, clock):
    return EventManager(folder / "state.json", None, act, Log(quiet=True), clock, steady=clock)


def done(limit_w):
    return Outcome("p", 100e6, limit_w, limit_w, 3, 1, 1, 1, 1, 8, True, 0.1, False)


def test_an_event_that_is_cancelled_while_another_one_acts_does_not_act(tmp_path, clock):
    calls = []

    def act(limit_w, *_):
        calls.append(limit_w)
        manager.receive(parse({"event_id": "dr-2", "status": "cancelled"})[0])
        return done(limit_w)

    manager = manager_of(tmp_path, act, clock)
    manager.receive(parse(GOOD)[0])
    manager.receive(parse(GOOD | {"event_id": "dr-2", "power_limit": "50 MW"})[0])
    manager.tick()
    manager.tick()
    assert calls == [60e6]
    assert manager.event("dr-2").state == "cancelled"


def test_a_wait_ends_for_an_event_in_need_and_for_a_change_of_its_own(tmp_path, clock):
    seen = []

    def act(limit_w, *_):
        first = manager.must_yield()
        if not seen:
            manager.receive(parse(GOOD | {"event_id": "dr-2", "within": "8 s"})[0])
            clock.now_s += 1.9
            seen.append((first, manager.must_yield()))
            clock.now_s += 0.2
            seen.append(manager.must_yield())
            manager.receive(parse({"event_id": "dr-2", "status": "cancelled"})[0])
            seen.append(manager.must_yield())
            manager.receive(parse(GOOD | {"modification": 1})[0])
            seen.append(manager.must_yield())
        return done(limit_w)

    manager = manager_of(tmp_path, act, clock)
    manager.receive(parse(GOOD)[0])
    manager.tick()
    assert seen == [(False, False), True, False, True]


def test_a_wait_that_gives_way_is_no_failed_try_and_goes_on_whatever_comes_between(tmp_path, clock):
    waits, others = [], []

    def act(limit_w, _reduction, _end_s, within_s):
        if within_s != 3600.0:
            others.append(limit_w)
            return done(limit_w)
        waits.append(limit_w)
        if len(waits) < 20:
            manager.receive(parse(GOOD | {"event_id": f"dr-{len(waits) + 1}", "within": "1 s"})[0])
        clock.now_s += 0.3
        problems = ("not confirmed yet",) if manager.must_yield() else ()
        return msgspec.structs.replace(done(limit_w), problems=problems)

    manager = manager_of(tmp_path, act, clock)
    manager.receive(parse(GOOD | {"event_id": "slow", "within": "1 h"})[0])
    for _ in range(60):
        manager.tick()
        clock.now_s += 5.0
    assert (len(waits), len(others)) == (20, 19)
    assert manager.event("slow").outcome.problems == ()


def test_a_retry_does_not_wait_behind_a_slow_event_either(tmp_path, clock):
    seen, failed = [], []

    def act(limit_w, *_):
        if limit_w == 50e6 and not failed:
            failed.append(limit_w)
            raise Retryable("store: away")
        if limit_w == 60e6:
            for _ in range(8):
                clock.now_s += 2.0
                seen.append(manager.must_yield())
        return done(limit_w)

    manager = manager_of(tmp_path, act, clock)
    manager.receive(parse(GOOD | {"event_id": "dr-2", "power_limit": "50 MW"})[0])
    manager.receive(parse(GOOD | {"event_id": "slow", "within": "1 h"})[0])
    manager.tick()
    assert seen == [False] * 6 + [True] * 2
