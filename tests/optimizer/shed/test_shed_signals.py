"""Shed signals: reading, refusals, acting once, and the fall of the limit."""

import io
import json
import time
from zoneinfo import ZoneInfo

import msgspec
import pytest

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.site.curtailment import read_events
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_optimizer.shed.signals import parse_signals
from powerhall_optimizer.shed.stages import stages

NOW_S = 1_800_000_000.0
GOOD = {"event_id": "dr-1", "duration": "1 h", "power_limit": "350 MW"}


def parse(event, now_s=NOW_S):
    return parse_signals(json.dumps(event).encode(), "signal.json", "phx", now_s)


def test_an_event_reads_the_same_from_json_and_csv():
    (one,) = parse(GOOD | {"start": "2027-01-15T08:00:00Z", "reduce_percent": None})
    text = b"event_id,start,duration,power_limit\ndr-1,2027-01-15T08:00:00Z,1 h,350 MW\n"
    assert parse_signals(text, "signal.csv", "phx", NOW_S) == [one]
    assert (one.start_s, one.end_s, one.limit_w, one.within_s) == (NOW_S, NOW_S + 3600, 350e6, 10.0)
    (share,) = parse({"event_id": "2", "duration": "PT1H30M", "reduce_percent": 30, "zone": "phx", "within": "5s"})
    assert (share.start_s, share.end_s, share.share, share.within_s) == (NOW_S, NOW_S + 5400, 0.3, 5.0)


def test_times_without_an_offset_are_local_to_the_site():
    event = GOOD | {"start": "2027-01-15T09:00", "end": "2027-01-15T10:00"}
    del event["duration"]
    (local,) = parse_signals(json.dumps(event).encode(), "signal.json", "phx", NOW_S, ZoneInfo("Europe/Berlin"))
    assert (local.start_s, local.end_s) == (NOW_S, NOW_S + 3600)
    assert parse(event)[0].start_s == NOW_S + 3600  # the site names no zone: UTC


def test_a_signal_has_the_fields_of_an_event_file():
    more = {"test_event": "true", "priority": 1, "created": 0, "market_context": "m", "comment": "c", "duration": 0}
    (drill,) = parse(GOOD | more)
    assert (drill.is_test, drill.end_s - drill.start_s) == (True, 7 * 86400.0)
    text = b"event_id,duration,power_limit,test_event,priority\ndr-1,1 h,350 MW,false,2\n"
    assert not parse_signals(text, "signal.csv", "phx", NOW_S)[0].is_test


def test_a_cancellation_needs_no_more_than_its_id():
    (one,) = parse({"event_id": "dr-1", "status": "cancelled", "modification": 2})
    assert (one.is_cancelled, one.modification) == (True, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"event_id": ""}, "event_id"),
        ({"event_id": "../../etc"}, "event_id"),
        ({"event_id": "x" * 129}, "event_id"),
        ({"duration": ""}, "never recovers"),
        ({"duration": "soon"}, "number and a unit"),
        ({"duration": "8 d"}, "7 days"),
        ({"start": NOW_S - 7200}, "over"),
        ({"start": "yesterday"}, "start"),
        ({"power_limit": "350"}, "power_limit"),
        ({"power_limit": None}, "power_limit"),
        ({"reduce_percent": 30}, "either power_limit or reduce_percent"),
        ({"power_limit": None, "reduce_percent": 0}, "above 0"),
        ({"power_limit": None, "reduce_percent": 130}, "0 to 100"),
        ({"zone": "hall1"}, "zone"),
        ({"status": "maybe"}, "status"),
        ({"modification": -1}, "modification"),
        ({"within": "0.1 s"}, "within"),
        ({"powerlimit": "3 MW"}, "powerlimit"),
    ],
)
def test_what_does_not_fit_is_refused_by_field(change, says):
    with pytest.raises(Rejected, match=says) as caught:
        parse(GOOD | change)
    assert "\n" not in str(caught.value)
    assert "signal.json" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"[1]", b"\xff\xfe,\n1", b"[" * 100_000, b"{}" + b" " * 70_000])
def test_garbage_is_refused(text):
    with pytest.raises(Rejected, match="signal"):
        parse_signals(text, "signal.json", "phx", NOW_S)


def test_without_a_ramp_the_target_is_one_step():
    assert stages(100.0, 70.0, None, 10.0) == [(0.0, 70.0)]
    assert stages(50.0, 70.0, 1.0, 10.0) == [(0.0, 70.0)]


def test_steps_fall_no_faster_than_the_ramp_and_end_at_the_target():
    steps = stages(100e6, 70e6, 1e6, None)
    assert steps[-1][1] == 70e6
    power_w, before_s = 100e6, 0.0
    for at_s, level_w in steps:
        assert power_w - level_w <= 1e6 * max(steps[1][0], at_s - before_s) + 1
        power_w, before_s = level_w, at_s


def test_a_deadline_takes_precedence_over_the_ramp():
    steps = stages(100e6, 70e6, 0.1e6, 10.0)
    assert steps[-1][1] == 70e6
    assert len(steps) == 5
    assert steps[-1][0] < 5.0


class Acts:
    """Counts the actions of an event manager; raises Retryable the first `fails` times."""

    def __init__(self, fails=0, problems=()):
        self.calls, self.fails, self.problems = [], fails, problems

    def __call__(self, limit_w, reduction, end_s, within_s):
        less_w = 0.0 if reduction is None else 100e6 - reduction.limit_w(100e6)
        self.calls.append((limit_w, less_w / 100e6))
        if self.fails:
            self.fails -= 1
            raise Retryable("store: away")
        target_w = min(limit_w or 1e12, 100e6 - less_w)
        return Outcome("p", 100e6, target_w, target_w, 3, 1, 1, 1, 1, 8, True, 0.1, False, problems=self.problems)


class Clock:
    def __init__(self):
        self.now_s = NOW_S

    def __call__(self):
        return self.now_s


def manager_of(tmp_path, acts, clock):
    return EventManager(tmp_path / "state.json", tmp_path / "events.json", acts, Log(quiet=True), clock, steady=clock)


@pytest.fixture
def clock():
    return Clock()


def test_an_event_acts_once_however_often_it_comes_and_also_after_a_restart(tmp_path, clock):
    acts = Acts()
    manager = manager_of(tmp_path, acts, clock)
    (signal,) = parse(GOOD)
    for _ in range(3):
        manager.receive(signal)
        manager.tick()
    again = manager_of(tmp_path, acts, clock)
    again.receive(signal)
    again.tick()
    assert acts.calls == [(350e6, 0.0)]
    assert again.event("dr-1").state == "active"


def test_an_event_manager_that_ended_before_it_acted_acts_after_its_restart(tmp_path, clock):
    manager_of(tmp_path, Acts(), clock).receive(parse(GOOD)[0])
    acts = Acts()
    manager_of(tmp_path, acts, clock).tick()
    assert len(acts.calls) == 1


def test_an_announced_event_acts_at_its_start(tmp_path, clock):
    acts = Acts()
    manager = manager_of(tmp_path, acts, clock)
    manager.receive(parse(GOOD | {"start": NOW_S + 600})[0])
    manager.tick()
    assert acts.calls == []
    assert read_events(tmp_path / "events.json", "phx")[0].start_s == NOW_S + 600, "rounds see it ahead"
    clock.now_s += 600
    manager.tick()
    assert len(acts.calls) == 1


def test_a_higher_modification_acts_anew_and_a_lower_one_does_not(tmp_path, clock):
    acts = Acts()
    manager = manager_of(tmp_path, acts, clock)
    for number, limit in ((1, "350 MW"), (2, "300 MW"), (1, "10 MW")):
        manager.receive(parse(GOOD | {"modification": number, "power_limit": limit})[0])
        manager.tick()
    assert [limit for limit, _ in acts.calls] == [350e6, 300e6]


def test_the_lowest_limit_of_all_active_events_holds(tmp_path, clock):
    acts = Acts()
    manager = manager_of(tmp_path, acts, clock)
    manager.receive(parse(GOOD | {"power_limit": "60 MW"})[0])
    manager.tick()
    manager.receive(parse({"event_id": "dr-2", "duration": "2 h", "reduce_percent": 10})[0])
    manager.tick()
    assert acts.calls == [(60e6, 0.0), (60e6, 0.1)]


def test_a_share_becomes_watts_when_the_event_acts_also_for_rounds(tmp_path, clock):
    manager = manager_of(tmp_path, Acts(), clock)
    manager.receive(parse({"event_id": "dr-2", "duration": "2 h", "reduce_percent": 30})[0])
    assert read_events(tmp_path / "events.json", "phx") == ()
    manager.tick()
    (event,) = read_events(tmp_path / "events.json", "phx")
    assert (event.zone, event.limit_w, event.end_s) == ("phx", 70e6, NOW_S + 7200)


@pytest.mark.parametrize("acts", [Acts(fails=1), Acts(problems=("store: away",))])
def test_failures_are_retried_with_pauses_and_not_for_ever(tmp_path, clock, acts):
    manager = manager_of(tmp_path, acts, clock)
    acts.calls.clear()
    manager.receive(parse(GOOD | {"duration": "6 h"})[0])
    manager.tick()
    manager.tick()
    assert len(acts.calls) == 1
    clock.now_s += 11
    manager.tick()
    assert len(acts.calls) == 2
    for _ in range(4000):
        clock.now_s += 5
        manager.tick()
    assert len(acts.calls) <= 6


def test_a_cancelled_event_ends_now_and_rounds_ramp_up_from_there(tmp_path, clock):
    manager = manager_of(tmp_path, Acts(), clock)
    manager.receive(parse(GOOD)[0])
    manager.tick()
    clock.now_s += 60
    assert manager.receive(parse({"event_id": "dr-1", "status": "cancelled"})[0]).state == "cancelled"
    (event,) = read_events(tmp_path / "events.json", "phx")
    assert event.end_s == NOW_S + 60


def test_an_event_that_comes_again_days_after_its_cancellation_stays_cancelled(tmp_path, clock):
    acts, event = Acts(), GOOD | {"start": NOW_S, "duration": "6 d"}
    manager = manager_of(tmp_path, acts, clock)
    manager.receive(parse(event)[0])
    manager.receive(parse(event | {"status": "cancelled"})[0])
    for _ in range(5):
        clock.now_s += 86_400
        manager.tick()
        assert manager.receive(parse(event, clock.now_s)[0]).state == "cancelled"
    manager.tick()
    assert acts.calls == []


def test_events_end_and_are_forgotten_a_day_later(tmp_path, clock):
    manager = manager_of(tmp_path, Acts(), clock)
    manager.receive(parse(GOOD)[0])
    manager.tick()
    clock.now_s += 3601
    manager.tick()
    assert manager.event("dr-1").state == "ended"
    assert read_events(tmp_path / "events.json", "phx"), "its ramp up is still ahead of the rounds"
    clock.now_s += 86_400
    manager.tick()
    assert manager.events() == []


def test_a_full_disk_does_not_keep_an_event_from_acting(tmp_path, clock):
    acts = Acts()
    manager = manager_of(tmp_path, acts, clock)
    (tmp_path / ".state.json.part").mkdir()
    manager.receive(parse(GOOD)[0])
    manager.tick()
    assert len(acts.calls) == 1


def test_events_that_a_person_wrote_into_the_file_stay(tmp_path, clock):
    own = {"event_id": "maintenance", "start": NOW_S, "end": NOW_S + 9e4, "zone": "hall1", "power_limit": "1 MW"}
    (tmp_path / "events.json").write_text(json.dumps([own]))
    manager = manager_of(tmp_path, Acts(), clock)
    manager.receive(parse(GOOD)[0])
    manager_of(tmp_path, Acts(), clock)
    assert [event.zone for event in read_events(tmp_path / "events.json", "phx")] == ["hall1", "phx"]
    with pytest.raises(ConfigError, match="json"):
        EventManager(tmp_path / "state.json", tmp_path / "events.csv", Acts(), Log(quiet=True), clock, steady=clock)


def test_events_that_a_person_adds_while_the_service_runs_stay(tmp_path, clock):
    manager = manager_of(tmp_path, Acts(), clock)
    own = {"start": NOW_S, "end": NOW_S + 900, "power_limit": "80 MW", "event_id": "by-hand"}
    (tmp_path / "events.json").write_text(json.dumps([own]))
    manager.receive(parse(GOOD)[0])
    manager.tick()
    assert {row["event_id"] for row in json.loads((tmp_path / "events.json").read_text())} == {"by-hand", "dr-1"}
    clock.now_s += 9 * 86_400
    manager.tick()
    manager.tick()
    assert [row["event_id"] for row in json.loads((tmp_path / "events.json").read_text())] == ["by-hand"]


def test_an_events_file_that_a_person_has_damaged_stops_no_shed_and_is_not_written_over(tmp_path, clock):
    own = {"start": NOW_S, "end": NOW_S + 900, "power_limit": "80 MW", "event_id": "by-hand"}
    (tmp_path / "events.json").write_text(broken := json.dumps([own])[:-1])
    acts = Acts()
    manager = manager_of(tmp_path, acts, clock)
    manager.receive(parse(GOOD)[0])
    manager.tick()
    assert acts.calls == [(350e6, 0.0)]
    assert (manager.is_saved, (tmp_path / "events.json").read_text()) == (False, broken)
    (tmp_path / "events.json").write_text(json.dumps([own]))
    clock.now_s += 6.0
    manager.tick()
    assert {event.limit_w for event in read_events(tmp_path / "events.json", "phx")} == {80e6, 350e6}
    assert manager.is_saved


def test_the_state_file_is_readable_json(tmp_path, clock):
    manager = manager_of(tmp_path, Acts(), clock)
    manager.receive(parse(GOOD)[0])
    manager.tick()
    (known,) = msgspec.json.decode((tmp_path / "state.json").read_bytes()).values()
    assert known["outcome"]["met"] is True
    assert time.time() > 0


def test_a_reduction_by_power_becomes_watts_when_the_event_acts(tmp_path, clock):
    """As site file and events file take it; JSON and CSV alike."""
    (event,) = parse({"event_id": "r", "duration": "PT1H", "reduce_by": "20 MW"})
    (row,) = parse_signals(b"event_id,duration,reduce_by\nr,PT1H,20000 kW\n", "s", "phx", NOW_S)
    assert event == row
    acts = Acts()
    manager = manager_of(tmp_path, acts, clock)
    manager.receive(event)
    manager.tick()
    assert acts.calls == [(None, pytest.approx(0.2))]
    assert manager.events()[0].limit_w == 80e6
    again = manager_of(tmp_path, acts, clock)
    assert (again.events()[0].reduce_w, again.events()[0].limit_w) == (20e6, 80e6)
    for amount in ("0 W", "-5 MW", "2000 GW", "20"):
        with pytest.raises(Rejected, match="reduce_by"):
            parse({"event_id": "r", "duration": "PT1H", "reduce_by": amount})


def test_an_event_keeps_its_own_limit_beside_a_lower_one_of_another(tmp_path, clock):
    """d 60 MW for a minute; e 500 MW, f 400.9 MW later and p 10 % of 100 MW outlive it with limits of their own."""

    def act(limit_w, reduction, end_s, within_s):
        own_w = None if reduction is None else reduction.limit_w(100e6)
        level_w = min(watts for watts in (limit_w, own_w) if watts is not None)
        acted.append(level_w)
        return Outcome("p", 100e6, level_w, level_w, 3, 1, 1, 1, 1, 8, True, 0.1, False, own_w=own_w)

    acted = []
    manager = manager_of(tmp_path, act, clock)
    limits = {"d": {"power_limit": "60 MW", "duration": "60 s"}, "e": {"power_limit": "500 MW", "duration": "2 h"}}
    limits["f"] = {"power_limit": "400900000.9 W", "duration": "2 h", "start": NOW_S + 10}
    limits["p"] = {"reduce_percent": 10, "duration": "2 h"}
    for name, limit in limits.items():
        manager.receive(parse({"event_id": name} | limit)[0])
        manager.tick()
    clock.now_s += 20
    manager.tick()
    assert acted == [60e6] * 4, "the lowest holds"
    assert {known.event_id: known.limit_w for known in manager.events()} == {
        "d": 60e6, "e": 500e6, "f": 400900000.9, "p": 90e6
    }  # fmt: skip
    rows = {row["event_id"]: row["power_limit"] for row in json.loads((tmp_path / "events.json").read_text())}
    assert rows == {"d": "60000000 W", "e": "500000000 W", "f": "400900000 W", "p": "90000000 W"}, "rounded down"
    clock.now_s += 60
    manager.tick()
    manager.receive(parse({"event_id": "g", "duration": "2 h", "power_limit": "300 MW"})[0])
    manager.tick()
    assert acted[4:] == [90e6], "after d has ended, the lowest of those that are left"
    assert manager_of(tmp_path, act, clock).event("e").limit_w == 500e6


def test_the_log_has_whole_seconds(tmp_path, clock):
    out = io.StringIO()
    manager = EventManager(tmp_path / "state.json", None, Acts(), Log(out), clock, steady=clock)
    manager.receive(parse(GOOD)[0])
    assert f" start_s={int(NOW_S)} end_s={int(NOW_S) + 3600}\n" in out.getvalue()
