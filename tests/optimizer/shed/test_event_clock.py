"""Shed events under wall clocks that are set: by minutes and days, both ways, for a tick or for most of an hour."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerhall.runtime.log import Log
from powerhall_optimizer.shed.event_clock import BELIEVED_S, SETTLES_S
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_optimizer.shed.signals import parse_signals

T0_S = 1_800_000_000.0
DAY_S = 86_400.0


class Planner:
    """A planner whose wall clock errs by `err_s`; `up_s` counts since its boot."""

    def __init__(self, folder):
        self.folder, self.true_s, self.err_s, self.boot_true_s = folder, T0_S, 0.0, T0_S - 1e5
        self.acts = []
        self.start()

    def start(self):
        self.manager = EventManager(
            self.folder / "state.json",
            self.folder / "events.json",
            self._act,
            Log(quiet=True),
            lambda: self.true_s + self.err_s,
            steady=lambda: self.true_s - self.boot_true_s,
        )

    def reboot(self, off_s):
        self.true_s += off_s
        self.boot_true_s = self.true_s
        self.start()

    def _act(self, limit_w, _less, end_s, _within_s):
        self.acts.append((self.true_s, limit_w, end_s))
        return Outcome("p", 1e6, limit_w, limit_w, 1, 1, 0, 0, 0, 1, True, 0.1, False)

    def send(self, **event):
        body = json.dumps({"event_id": "a"} | event).encode()
        return self.manager.receive(parse_signals(body, "x", "phx", self.manager.now_s())[0])

    def step(self, err_s, after_s=0.1):
        self.true_s += after_s
        self.err_s = err_s
        self.manager.tick()

    def state(self, name="a"):
        return self.manager.event(name).state

    @property
    def rows(self):
        return {row["event_id"]: row for row in json.loads((self.folder / "events.json").read_text())}


@pytest.fixture
def planner(tmp_path):
    return Planner(tmp_path)


@pytest.mark.parametrize("error_s", [900.0, 3600.0, 2 * DAY_S, 400 * DAY_S, -3600.0, -2 * DAY_S])
def test_a_clock_that_is_wrong_for_a_tick_ends_and_forgets_nothing(planner, error_s):
    planner.send(start=T0_S + 300, duration="30 min", power_limit="100 kW")
    planner.send(event_id="b", duration="30 min", power_limit="90 kW", modification=3)
    planner.step(0.0)
    planner.step(error_s)
    assert (planner.state(), planner.state("b")) == ("announced", "active")
    assert planner.rows.keys() == {"a", "b"}
    assert planner.manager.clock_problem.startswith("this host's clock is ")
    old = planner.send(event_id="b", duration="30 min", power_limit="900 kW", modification=1)
    assert old.modification == 3
    planner.step(0.0)
    assert planner.manager.clock_problem == ""
    planner.step(0.0, after_s=301)
    assert planner.acts[-1][1] == 90e3, "the announced event acts, under the lower limit that holds"
    assert (planner.state(), planner.state("b")) == ("active", "active")
    planner.step(0.0, after_s=1500)
    assert (planner.state(), planner.state("b")) == ("active", "ended")
    planner.step(0.0, after_s=301)
    assert planner.state() == "ended"


@pytest.mark.parametrize("error_s", [3600.0, -3600.0, 9 * DAY_S])
def test_an_event_that_comes_while_the_clock_is_wrong_has_its_own_length_from_now(planner, error_s):
    planner.step(error_s)
    planner.send(duration="30 min", power_limit="90 kW")
    planner.step(error_s)
    assert len(planner.acts) == 1
    assert planner.acts[0][2] == pytest.approx(T0_S + 1800, abs=1)
    planner.step(0.0, after_s=1790)
    assert planner.state() == "active"
    planner.step(0.0, after_s=11)
    assert planner.state() == "ended"


def test_a_clock_that_is_set_right_is_followed(tmp_path):
    """The planner came up an hour slow, and is set right: an event that is due acts within a minute of that."""
    planner = Planner(tmp_path)
    planner.err_s = -3600.0
    planner.start()
    planner.send(start=T0_S + 10, duration="2 h", power_limit="90 kW")
    planner.step(-3600.0)
    planner.step(0.0, after_s=10)
    planner.step(0.0, after_s=SETTLES_S)
    assert len(planner.acts) == 1
    planner.step(0.0, after_s=BELIEVED_S)
    assert planner.manager.clock_problem == ""
    planner.step(0.0, after_s=3600.0)
    assert planner.state() == "ended"


@pytest.mark.parametrize(("ahead_s", "acts"), [(590.0, 1), (3600.0, 0)])
def test_by_a_doubted_clock_an_event_acts_a_few_minutes_early_rather_than_late(planner, ahead_s, acts):
    planner.send(start=T0_S + 500, duration="2 h", power_limit="90 kW")
    planner.step(ahead_s)
    assert len(planner.acts) == acts


def test_an_end_that_a_fast_clock_told_is_taken_back(tmp_path):
    """The planner came up a day fast: what it took for over is in force again after its clock is right."""
    planner = Planner(tmp_path)
    planner.err_s = DAY_S
    planner.start()
    planner.send(start=T0_S, end=T0_S + DAY_S + 60, power_limit="90 kW")
    planner.step(DAY_S)
    planner.step(DAY_S, after_s=60)
    assert planner.state() == "ended"
    planner.step(0.0)
    planner.step(0.0, after_s=SETTLES_S)
    assert planner.state() == "active"
    planner.step(0.0, after_s=DAY_S)
    assert planner.state() == "ended"


@pytest.mark.parametrize("off_s", [None, 300.0])
def test_a_restart_under_a_fast_clock_keeps_the_limit(planner, off_s):
    planner.send(duration="2 h", power_limit="90 kW")
    planner.step(0.0)
    planner.err_s = 2 * DAY_S
    if off_s is None:
        planner.start()
    else:
        planner.reboot(off_s)
    assert "ahead" in planner.manager.clock_problem
    planner.step(2 * DAY_S)
    assert planner.state() == "active"
    assert "a" in planner.rows
    planner.step(0.0)
    assert planner.state() == "active"
    planner.step(0.0, after_s=BELIEVED_S)
    planner.step(0.0, after_s=3601)
    assert planner.state() == "ended"


def test_a_damaged_time_file_keeps_nobody_from_starting(planner):
    for damage in (b"", b"\xff", b'{"time_s": 1e999, "boot_s": 0}', b"[]"):
        (planner.folder / "state.json.clock").write_bytes(damage)
        planner.start()
        assert planner.manager.now_s() == planner.true_s


ERRORS = st.one_of(
    st.just(0.0),
    st.integers(10, 7200).map(float),
    st.integers(-7200, -10).map(float),
    st.integers(-5, 5).filter(bool).map(lambda days: days * DAY_S),
)
STEPS = st.lists(st.tuples(ERRORS, st.integers(1, 3000), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, ahead_s=st.integers(0, 5000), lasts_s=st.integers(60, 9000))
def test_a_limit_never_ends_early_and_an_announced_event_always_acts(tmp_path_factory, steps, ahead_s, lasts_s):
    """Errors of up to days, each for less than an hour, right or restarted in between: seen from the true time."""
    planner = Planner(tmp_path_factory.mktemp("clock"))
    start_s, end_s = T0_S + ahead_s, T0_S + ahead_s + lasts_s
    planner.send(start=start_s, end=end_s, power_limit="90 kW")
    planner.step(0.0)
    for error_s, holds_s, restarts in steps:
        planner.step(0.0)
        if restarts:
            planner.start()
        for at_s in range(0, holds_s, 30):
            planner.step(error_s, after_s=min(30, holds_s - at_s))
            if planner.true_s < end_s - 5.0:
                assert planner.state() in ("announced", "active")
                assert len(planner.rows) == 1
            if start_s + 5.0 <= planner.true_s < end_s - 5.0:
                assert planner.acts, "it acts at its start, whatever the wall clock says"
    right_s = max(end_s, planner.true_s) + BELIEVED_S + 60.0
    while planner.true_s < right_s:
        planner.step(0.0, after_s=30)
    assert planner.state() == "ended"
    assert len(planner.acts) == 1
