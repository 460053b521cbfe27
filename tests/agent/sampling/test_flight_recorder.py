"""The flight recorder on its own."""

from powerhall_agent.sampling.flight_recorder import FlightRecorder


def drain(recorder):
    taken = []
    while True:
        some = recorder.take()
        if not some:
            return taken
        taken += some


def test_recorder_ships_a_minute_on_either_side_of_a_trigger():
    recorder = FlightRecorder()
    shipped = []
    for tick in range(2000):
        recorder.add(tick * 100, 1000, tick)
        if tick == 1000:
            assert recorder.trigger(tick * 100)
        shipped += recorder.take()
    assert shipped == [(tick * 100, 1000, tick) for tick in range(400, 1601)]


def test_recorder_ships_nothing_without_a_trigger():
    recorder = FlightRecorder()
    for tick in range(3000):
        recorder.add(tick * 100, 1000, tick)
        assert recorder.take() == []


def test_triggers_close_together_make_one_recording_without_repeats():
    recorder = FlightRecorder()
    shipped = []
    for tick in range(3000):
        recorder.add(tick * 100, 1000, tick)
        if tick in (1000, 1300):
            assert recorder.trigger(tick * 100)
        shipped += recorder.take()
    assert [sample[2] for sample in shipped] == list(range(400, 1901))


def test_recordings_of_an_hour_are_limited():
    recorder = FlightRecorder()
    allowed = sum(recorder.trigger(start * 200_000) for start in range(1, 18))
    assert allowed == 6
    assert recorder.refused == 11
    assert recorder.trigger(2 * 3_600_000 + 18 * 200_000)
