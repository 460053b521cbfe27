"""Operational events of newer drivers beside XIDs, and drivers that have none or take them back."""

import ctypes

import pynvml
import pytest

from powerhall_agent.nvml import operational_events
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.sampling import driver_events
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.faults import apply, parse_script
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile


@pytest.fixture
def watched(request):
    """A node of two GPUs, and the watch of its events."""
    state = StateFile.create(gpus=2, node="gn01")
    state.ints[at.H_MISSING_SYMBOLS] |= getattr(request, "param", 0)
    install([state])
    driver = Driver()
    watch = driver_events.EventWatch(driver, driver.gpus)
    yield state, watch
    watch.close()
    driver.close()


def post(state, *faults):
    for fault in faults:
        for step in parse_script(f"at 0 {fault}"):
            apply(state, step)


def test_both_kinds_of_events_come_in_order_with_their_gpu(watched):
    state, watch = watched
    post(state, "gpu 1 operational 7 30 94", "gpu 0 xid 79", "gpu 0 operational 9 10", "gpu 1 operational 8 40")
    found = [watch.events.get(timeout=5) for _ in range(4)]
    assert [(event.kind, event.gpu, event.code, event.severity) for event in found] == [
        ("operational", 1, 7, 1),
        ("xid", 0, 79, 2),
        ("operational", 0, 9, 0),
        ("operational", 1, 8, 2),
    ]
    assert found[0].detail == "GSP event 7: recoverable, category 0, XID 94"
    assert found[2].detail == "GSP event 9: informational, category 0"


@pytest.mark.parametrize("watched", [1 << at.OPTIONAL_SYMBOLS.index("nvmlEventSetWait_v3")], indirect=True)
def test_a_driver_without_them_gives_the_others_as_ever(watched):
    state, watch = watched
    post(state, "gpu 1 operational 7", "gpu 1 xid 79")
    event = watch.events.get(timeout=5)
    assert (event.kind, event.gpu, event.code) == ("xid", 1, 79)


@pytest.mark.parametrize("code", [3, 13, 25])
def test_a_driver_that_refuses_the_wait_is_waited_for_as_older_ones(monkeypatch, code):
    state = StateFile.create(gpus=1, node="gn01")
    install([state])
    driver = Driver()
    monkeypatch.setattr(driver_events, "wait", lambda *_: (code, None))
    watch = driver_events.EventWatch(driver, driver.gpus)
    post(state, "gpu 0 xid 45")
    assert watch.events.get(timeout=5).code == 45
    watch.close()


def test_attributes_and_unknown_numbers_are_told_in_words():
    found = pynvml.c_nvmlEventSetWait_v3_t()
    found.dataType, found.sourceModule, found.moduleEventCode = 1, b"\xf8odd", 5
    found.severity, found.categoryId, found.attributes, found.groupAttributes = 77, 3, 0x55, 0x4
    found.groupSize, found.groupIndex = 3, 1
    install([StateFile.create(gpus=1, node="gn01")])
    code, text, severity = operational_events.described(ctypes.c_void_p(), found)
    assert (code, severity) == (5, 1)
    assert text == (
        "\\xf8odd event 5: severity 77, category 3, uncontained, propagated, threshold exceeded, events lost, "
        "simulated, 2 of 3"
    )


def test_an_informational_event_is_stored_and_starts_no_recording(start):
    run = start(gpus=1)
    run.until(5, "gpu", gpu="0")
    run.do("gpu 0 operational 3 10")
    run.until(5, "event", gpu="0", kind="operational", code=3.0, severity=0.0)
    assert not run.find("gpu_fast")
    run.do("gpu 0 operational 4 40 48")
    run.until(5, "event", gpu="0", kind="operational", code=4.0, severity=2.0)
    run.until(5, "gpu_fast", gpu="0")
