import io
import os
import re
import time

from powerhall.runtime.log import Log


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def lines(out):
    return out.getvalue().splitlines()


def test_an_event_is_one_line_of_time_level_name_and_values():
    out = io.StringIO()
    Log(out).info("started", node="n1", outputs=2, share=1 / 3)
    (line,) = lines(out)
    assert re.fullmatch(r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ level=info event=started node=n1 outputs=2 share=.*", line)
    assert line.endswith("share=0.333333")


def test_values_that_are_not_one_word_are_quoted_on_one_line():
    out = io.StringIO()
    Log(out).error("refused", detail='no "such"\n  file', empty="", path="a=b", windows="C:\\ x")
    (line,) = lines(out)
    assert line.endswith("""detail="no 'such' file" empty="" path="a=b" windows="C:\\\\ x\"""")


def test_quiet_leaves_out_info_only():
    out = io.StringIO()
    log = Log(out, quiet=True)
    log.info("a")
    log.warning("b")
    log.error("c")
    assert [line.split("event=")[1] for line in lines(out)] == ["b", "c"]


def test_a_warning_without_a_key_is_always_written():
    out = io.StringIO()
    log = Log(out)
    for _ in range(3):
        log.warning("signal_refused")
    assert len(lines(out)) == 3


def test_a_warning_with_a_key_is_written_once_a_minute_and_repeats_are_counted():
    out, clock = io.StringIO(), Clock()
    log = Log(out, clock)
    for second in range(0, 121, 20):
        clock.now_s = second
        log.warning("store_unreachable", key="a", output="a")
    assert [line.split("output=")[1] for line in lines(out)] == ["a", "a repeated=2", "a repeated=2"]


def test_keys_and_events_are_counted_apart():
    out = io.StringIO()
    log = Log(out, Clock())
    for event, key in (("x", "a"), ("x", "b"), ("y", "a"), ("x", "a")):
        log.warning(event, key=key)
    assert len(lines(out)) == 3


def test_forget_lets_the_next_warning_through():
    out = io.StringIO()
    log = Log(out, Clock())
    log.warning("device_silent", key="d")
    log.forget("device_silent", key="d")
    log.warning("device_silent", key="d")
    assert len(lines(out)) == 2
    assert "repeated" not in out.getvalue()


def test_exception_adds_the_traceback():
    out = io.StringIO()
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        Log(out).exception("collector_failed", family="gpu")
    assert "event=collector_failed family=gpu" in lines(out)[0]
    assert lines(out)[-1] == "ZeroDivisionError: integer division or modulo by zero"


def test_a_log_that_cannot_be_written_does_not_stop_the_caller():
    class Full(io.StringIO):
        def write(self, _text):
            raise OSError(28, "No space left on device")

    Log(Full()).error("x")
    closed = io.StringIO()
    closed.close()
    Log(closed).info("x")


def test_stderr_is_looked_up_at_every_line(capsys):
    log = Log()
    log.info("x")
    assert "event=x" in capsys.readouterr().err


def test_a_reader_that_stands_still_stops_nobody_and_gets_lines_again_when_it_reads():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", 0) as end, os.fdopen(writer, "w") as out:
        log = Log(out)
        begin_s = time.monotonic()
        for number in range(2000):
            log.warning("full", number=number, text="x" * 100)
        assert time.monotonic() - begin_s < 2.0
        first = end.read(1 << 20)
        assert b"number=0 " in first
        assert b"number=1999 " not in first
        log.warning("again")
        assert end.read(1 << 20).endswith(b"event=again\n")


def test_a_very_long_value_is_shortened_in_the_middle():
    out = io.StringIO()
    Log(out).warning("left_out", job="x" * 200_000 + "!")
    assert len(out.getvalue()) < 5_000
    assert out.getvalue().endswith('xxx!"\n')
