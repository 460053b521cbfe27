"""The shipper: order, rate, retries, refused lines, and the recovery of a whole site."""

import heapq
import io
import os
import random
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

import pytest

from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall_agent.delivery.bisection import Bisection
from powerhall_agent.delivery.dead_letter import DeadLetters
from powerhall_agent.delivery.errors import PointsTooOld, SetupError, StoreBusy
from powerhall_agent.delivery.pipeline import OutputPipeline
from powerhall_agent.delivery.shipper import Shipper
from powerhall_agent.delivery.spool import Batch, Spool
from powerhall_agent.settings.agent_settings import ShipSettings, load_settings


class Store:
    """A store in memory: lines by content, and a switch for every way to fail."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.requests = 0
        self.error: Exception | None = None
        self.bad: set[bytes] = set()

    def send(self, lines: bytes) -> None:
        self.requests += 1
        if self.error is not None:
            raise self.error
        parts = lines.splitlines(keepends=True)
        if self.bad & set(parts):
            raise Rejected("refused (400): unable to parse")
        self.lines += parts

    def cut(self) -> None:
        pass


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def memory_folder():
    """A folder in memory, where syncing is fast, for tests that append thousands of times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


class Rig:
    def __init__(self, folder, **ship) -> None:
        log = Log(io.StringIO())
        self.time, self.store = Time(), Store()
        self.spool = Spool(folder, 1 << 26, 8192, log)
        self.dead_letters = DeadLetters(folder, log)
        settings = ShipSettings(**ship)
        self.shipper = Shipper(
            self.spool, self.store, self.dead_letters, settings, log, clock=self.time, rng=random.Random(1)
        )

    def step(self, seconds: float = 1.0) -> float:
        self.time.now += seconds
        return self.shipper.step()


def _lines(first: int, count: int) -> bytes:
    return b"".join(b"gpu,gpu=0 power_w=500.0 %d\n" % number for number in range(first, first + count))


def test_live_lines_arrive_and_are_forgotten(rig):
    rig.spool.append(_lines(0, 8))
    assert rig.step() == 1.0
    assert b"".join(rig.store.lines) == _lines(0, 8)
    assert rig.spool.stats().points_waiting == 0
    assert rig.shipper.stats.newest_ms == 7


def test_a_busy_store_loses_nothing_and_is_tried_with_growing_pauses(rig):
    rig.store.error = StoreBusy("busy (503)")
    delays = []
    for second in range(40):
        rig.spool.append(_lines(8 * second, 8))
        delays.append(rig.step())
    assert max(delays) <= 60.0
    assert sum(delays[20:]) / 20 > 10
    rig.store.error = None
    for _ in range(40):
        rig.step()
    assert sorted(rig.store.lines) == sorted(_lines(0, 320).splitlines(keepends=True))


def test_a_store_that_names_a_pause_gets_it(rig):
    rig.store.error = StoreBusy("busy (429)", after_s=30.0)
    rig.spool.append(_lines(0, 1))
    assert rig.step() >= 30.0


def test_a_set_up_error_keeps_the_points(rig):
    rig.store.error = SetupError("not found (404): does the bucket exist?")
    rig.spool.append(_lines(0, 5))
    rig.step()
    assert "does the bucket exist" in rig.shipper.stats.problem
    assert rig.spool.stats().points_waiting == 5


def test_one_bad_line_among_five_thousand_is_isolated_in_thirty_requests(tmp_path):
    rig = Rig(tmp_path / "b")
    good = _lines(0, 5000).splitlines(keepends=True)
    bad = b"gpu,gpu=0 power_w=oops 3333\n"
    good[3333] = bad
    batch = Batch(b"".join(good), 5000, ())
    rig.store.bad = {bad}
    bisection = Bisection(batch, batch.lines, Rejected("refused (400)"), rig.dead_letters.add)
    while not bisection.done:
        bisection.step(rig.store.send)
    assert rig.store.requests <= 29  # and one before for the whole batch
    assert sorted(rig.store.lines) == sorted(line for line in good if line != bad)
    assert rig.dead_letters.path.read_bytes().endswith(bad)
    assert rig.dead_letters.points == 1


def test_bad_lines_do_not_delay_the_others(rig):
    rig.store.bad = {b"gpu,gpu=0 power_w=500.0 %d\n" % number for number in range(0, 800, 50)}
    for second in range(100):
        rig.spool.append(_lines(8 * second, 8))
        rig.step()
    for _ in range(5):
        rig.step()
    want = set(_lines(0, 800).splitlines(keepends=True)) - rig.store.bad
    assert set(rig.store.lines) == want
    assert rig.dead_letters.points == 16
    assert rig.spool.stats().points_waiting == 0


def test_points_older_than_the_store_keeps_are_not_sent_one_by_one(rig):
    rig.store.error = PointsTooOld("in whatever words")
    rig.spool.append(_lines(0, 8))
    rig.step()
    assert rig.store.requests == 1
    assert rig.dead_letters.points == 8


def test_a_store_that_fails_in_the_middle_of_a_search_is_asked_again(rig):
    rig.store.bad = {b"gpu,gpu=0 power_w=500.0 3\n"}
    rig.spool.append(_lines(0, 8))
    calls = iter([None, None, Retryable("reset"), Retryable("reset")])
    send = rig.store.send

    def flaky(lines: bytes) -> None:
        error = next(calls, None)
        if error is not None:
            raise error
        send(lines)

    rig.store.send = flaky
    for _ in range(5):
        rig.step(100.0)
    assert set(rig.store.lines) == set(_lines(0, 8).splitlines(keepends=True)) - rig.store.bad


def test_after_a_day_without_a_store_live_lines_come_first_and_nothing_is_lost(memory_folder):
    """24 hours in steps of a minute: 1440 appends of 60 points each."""
    rig = Rig(memory_folder)
    rig.store.error = Retryable("connection refused")
    for minute in range(1440):
        rig.spool.append(_lines(60 * minute, 60))
        rig.step(60.0)
        rig.spool.pack_one()
    rig.store.error = None
    rig.spool.append(_lines(86_400, 8))
    rig.step()
    assert b"gpu,gpu=0 power_w=500.0 86407\n" in rig.store.lines[:1000], "live lines are in the first delivery"
    newest, backlog = 86_408, []
    for _ in range(5000):
        rig.spool.append(_lines(newest, 8))
        newest += 8
        before = len(rig.store.lines)
        rig.step()
        backlog.append(len(rig.store.lines) - before - 8)
        if not rig.spool.backlog_points():
            break
    assert set(rig.store.lines) == set(_lines(0, newest).splitlines(keepends=True))
    assert len(rig.store.lines) == newest, "nothing was sent twice"
    window = [sum(backlog[i : i + 60]) for i in range(60, len(backlog) - 60)]
    assert max(window) <= 4 * 60 * 20 + 1000, "the backlog keeps to four times the live rate (at least 20 points/s)"


def test_an_internal_error_pauses_the_output_and_does_not_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr("powerhall_agent.delivery.pipeline._FAULT_PAUSE_S", 0.01)
    overrides = {"ship": {"interval_s": 0.01}}
    settings = load_settings(
        None, stores=[f"sqlite:///{tmp_path}/t.db"], spool=str(tmp_path / "s"), overrides=overrides
    )
    pipeline = OutputPipeline(settings, settings.output[0], Log(io.StringIO()))
    send, faults = pipeline.shipper.output.send, iter([KeyError("a bug"), ValueError("another")])

    def faulty(lines: bytes) -> None:
        error = next(faults, None)
        if error is not None:
            raise error
        send(lines)

    monkeypatch.setattr(pipeline.shipper.output, "send", faulty)
    pipeline.start()
    pipeline.append(b"gpu,site=s,node=n,gpu=0 power_w=500.0 1700000000000\n")
    end_s = time.monotonic() + 5
    while pipeline.spool.stats().points_waiting and time.monotonic() < end_s:
        time.sleep(0.01)
        pipeline.shipper.notify()
    assert pipeline.spool.stats().points_waiting == 0
    assert pipeline.shipper.stats.retries == 2
    pipeline.stop(time.monotonic() + 1)
    pipeline.join(1)


class MemorySpool:
    """The shipper's interface of a spool, without a disk: for a thousand agents at once."""

    def __init__(self) -> None:
        self.now: deque[int] = deque()
        self.old: deque[int] = deque()

    def live(self, _limit):
        return Batch(b"x 1\n", sum(self.now), ("live",)) if self.now else None

    def backlog(self, _limit):
        return Batch(b"x 1\n", self.old[0], ("old",)) if self.old else None

    def backlog_points(self):
        return self.old[0] if self.old else 0

    def ack(self, batch):
        if batch.parts == ("live",):
            self.now.clear()
        else:
            self.old.popleft()

    def release(self, _batch):
        pass

    def append(self, points):
        self.now.append(points)
        if len(self.now) >= 60:
            self.old.append(sum(self.now))
            self.now.clear()


def test_a_thousand_agents_do_not_overload_a_store_that_comes_back():
    """One request a second each is normal; never more than twice that, in any second of outage and recovery."""
    agents, outage, end_s = 1000, (1030.0, 1330.0), 1420.0
    dice, now = random.Random(5), Time()
    per_second: Counter[int] = Counter()

    class Counting(Store):
        def send(self, _lines: bytes) -> None:
            per_second[int(now.now)] += 1
            if outage[0] <= now.now < outage[1]:
                raise Retryable("connection refused")

    store = Counting()
    log = Log(io.StringIO())
    fleet = []
    queue: list[tuple[float, int]] = []
    appended = []
    for number in range(agents):
        spool = MemorySpool()
        shipper = Shipper(spool, store, None, ShipSettings(), log, clock=now, rng=random.Random(number))
        fleet.append((spool, shipper))
        phase = 1000.0 + dice.random()
        appended.append(phase)
        heapq.heappush(queue, (phase, number))
    while queue:
        due, number = heapq.heappop(queue)
        now.now = due
        spool, shipper = fleet[number]
        while appended[number] <= due:
            spool.append(10)
            appended[number] += 1.0
        wake = due + shipper.step()
        wake = wake if shipper.stats.problem else max(wake, appended[number])
        if wake < end_s:
            heapq.heappush(queue, (wake, number))
    normal = per_second[1020]
    assert normal == pytest.approx(agents, rel=0.05)
    worst = max(per_second[second] for second in range(1030, 1419))
    assert worst <= 2 * normal, worst
    during = sum(per_second[second] for second in range(1040, 1330)) / 290
    assert during < normal / 2, "a dead store is asked far less often than a living one"
    assert all(not spool.old or shipper.stats.sent_points for spool, shipper in fleet)
