"""Exceptions of any kind cost one GPU or one reading, are an event with a traceback, and end no sampling."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from powerhall.store.line_protocol import parse_lines
from powerhall_agent.base.encoder import Record, Series
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.collectors.gpu_fast import GpuFast
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.nvml.texts import driver_text
from powerhall_agent.sampling import driver_events, host_threads
from powerhall_agent.sampling.driver_thread import DriverThread, Task
from powerhall_agent.sampling.exit_code import SamplerExit
from powerhall_agent.sampling.gpu_reader import GpuReader
from powerhall_agent.sampling.sampler import Sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings, SimulateSettings
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile

EXCEPTIONS = [RuntimeError("odd"), UnicodeDecodeError("utf-8", b"\xf8", 0, 1, "odd"), KeyError(7), MemoryError()]


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_an_exception_in_a_reader_costs_its_gpu_alone(start, monkeypatch, capsys, error):
    run = start(gpus=3)
    genuine = GpuReader.poll

    def poll(reader, moment, kinds):
        if reader.gpu.index == 1:
            raise error
        genuine(reader, moment, kinds)

    monkeypatch.setattr(GpuReader, "poll", poll)
    monkeypatch.setattr(GpuReader, "poll_fast", lambda reader: reader.poll(reader._tick.moment, 1))
    run.done_s = time.monotonic()
    run.until(5, "gpu_state", gpu="1", up=0.0, reason="unknown_error")
    (event,) = run.find("event", kind="sampler_exception")
    assert event.tags["gpu"] == "1"
    assert type(error).__name__ in event.fields["detail"]
    assert "Traceback" in capsys.readouterr().err
    seen = len(run.find("gpu", gpu="2"))
    time.sleep(2.2)
    assert len(run.find("gpu", gpu="2")) >= seen + 2
    assert not [p for p in run.find("gpu_state", up=0.0) if p.tags["gpu"] != "1"]


def test_an_exception_in_a_collector_costs_its_fields_alone(start, monkeypatch):
    run = start(gpus=1)
    monkeypatch.setattr(GpuFull, "collect", lambda _self: 1 / 0)
    run.done_s = time.monotonic()
    run.until(5, "event", kind="sampler_exception")
    seen = len(run.find("gpu"))
    time.sleep(2.2)
    fresh = run.find("gpu")[seen:]
    assert fresh
    assert all("power_w" in point.fields and "temp_c" not in point.fields for point in fresh)
    assert not run.find("gpu_state", up=0.0)
    assert len(run.find("event", kind="sampler_exception")) == 1, "once a minute"


def test_a_gpu_that_cannot_be_opened_costs_itself(monkeypatch):
    state = StateFile.create(gpus=3, node="gn01")
    install([state])
    genuine = Driver.open

    def odd(driver, index):
        if index == 1:
            raise OverflowError("odd")
        return genuine(driver, index)

    monkeypatch.setattr(Driver, "open", odd)
    lines = []

    class Sink:
        def write(self, block):
            lines.extend(parse_lines(block))

    sampler = Sampler(SamplerSettings(node="gn01", rapl=False, attribution=False), Sink())
    sampler.open()
    assert [reader.gpu.index for reader in sampler._session.readers] == [0, 2]
    assert sampler._session.missing[1].reason == "unknown_error"
    sampler.close()


def test_a_driver_that_cannot_be_opened_is_tried_again(start, monkeypatch):
    run = start(gpus=1)
    genuine = Driver.__init__
    left = [2]

    def odd(driver, *arguments):
        if left[0]:
            left[0] -= 1
            raise LookupError("odd")
        genuine(driver, *arguments)

    monkeypatch.setattr(Driver, "__init__", odd)
    run.do("reload 595.45.01")
    run.until(8, "event", kind="driver_missing", code=999.0)
    run.until(8, "gpu_identity", driver="595.45.01")
    assert run.find("event", kind="sampler_exception")


def test_an_exception_of_the_steps_is_raised_where_they_were_begun():
    def steps():
        yield [Task(0, lambda: None)]
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        DriverThread().run(steps())


def test_an_event_thread_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(driver_events.EventWatch, "_wait_gpu", lambda _self, _ms: {}["odd"])
    install([StateFile.create(gpus=1, node="gn01")])
    driver = Driver()
    watch = driver_events.EventWatch(driver, driver.gpus)
    event = watch.events.get(timeout=5)
    watch.close()
    assert (event.kind, event.detail) == ("events_ended", "KeyError: 'odd'")


def test_a_host_thread_goes_on_after_an_exception():
    told, runs = [], threading.Semaphore(0)

    def run():
        runs.release()
        raise ZeroDivisionError

    thread = host_threads.HostThread("host-x", run, 0.01, lambda name, error: told.append((name, type(error))))
    assert all(runs.acquire(timeout=5) for _ in range(3))
    thread.close()
    assert told[:2] == [("host-x", ZeroDivisionError)] * 2


def test_a_record_that_cannot_be_encoded_costs_no_other():
    lines = []

    class Sink:
        def write(self, block):
            lines.append(block)

    sampler = Sampler(SamplerSettings(node="n", rapl=False, attribution=False), Sink())
    series = Series("node", {"node": "n"})
    for fields in ({"gpus": 1.0}, {"unknown": 1.0}, {"gpus": "text"}, {"gpus": 2.0}):
        sampler.queue.put(Record(series, fields, 5))
    sampler._flush()
    assert lines == [b"node,node=n gpus=1.0 5\nnode,node=n gpus=2.0 5\n"]


@pytest.mark.parametrize("raw", [b"\xf8\x91\x82\x8aNVIDIA", b"\xff\xfe", b"ok\x80", "caf\u00e9".encode("latin-1")])
def test_texts_of_the_driver_need_not_be_utf_8(raw):
    def call():
        raise AssertionError("pynvml's wrapper decodes strictly")

    call.__wrapped__ = lambda: raw
    text = driver_text(call)
    assert text.encode().decode("utf-8") == text
    assert "\\x" in text


def test_a_sampler_that_fails_says_so_and_ends_with_its_code():
    settings = SamplerSettings(node="n", simulate=SimulateSettings(gpus=1), rapl=False, attribution=False)
    program = (
        "from powerhall_agent.sampling import process, sampler\n"
        "sampler.Sampler.steps = lambda self, moment: (_ for _ in ()).throw(LookupError('odd'))\n"
        "import os; code = process.main(); os._exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=msgspec.json.encode(settings),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == SamplerExit.FAILED
    assert b"Traceback" in done.stderr
    (event,) = [p for p in parse_lines(done.stdout.replace(b"#\n", b"")) if p.measurement == "event"]
    assert event.tags["kind"] == "sampler_failed"
    assert "LookupError: odd" in event.fields["detail"]


def test_a_run_without_gpus_does_not_say_started_and_fails(tmp_path):
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    command = [str(Path(sys.executable).parent / "powerhall-agent"), "run", "--node", "n", "--for", "4"]
    store = ["--store", f"sqlite:///{tmp_path}/t.db", "--spool", str(tmp_path / "spool")]
    done = subprocess.run([*command, *store], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "event=waiting_for_gpus" in done.stderr
    assert "event=no_gpus" in done.stderr
    assert "event=started" not in done.stderr


def test_a_fast_reading_that_is_no_number_costs_itself(monkeypatch):
    install([StateFile.create(gpus=1, node="gn01")])
    driver = Driver()
    fast = GpuFast(driver, driver.gpus[0])
    for odd in (float("nan"), float("inf")):
        monkeypatch.setattr(fast, "collect", lambda odd=odd: {"power_w": odd, "energy_j": 7.0})
        assert fast.sample() == (None, 7000)
    driver.close()
