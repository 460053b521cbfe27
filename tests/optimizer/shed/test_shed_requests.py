"""Requests and events that cannot be are refused on one line; none ends the shed service."""

import json
import os
import random
import signal
import socket
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerhall.plan.plan import write_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.shed import http_endpoint, inbox
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.inbox import SignalInbox
from powerhall_optimizer.shed.signals import is_cut_off, parse_signals
from rigs.shed_door import EVENT, PROGRAM, TOKEN, act, call, refused, running


def mutated(rng, text):
    """Return a request with random bytes changed, cut, doubled or thrown in."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randrange(20)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(200)]
            case 3:
                data[at:at] = rng.choice((b"\r\n", b"\x00", b"\xff", b"9" * 5000, b"{" * 2000, b"1e308", b"\r\n\r\n"))
            case _:
                data = data[: at + 1]
    return bytes(data)


def test_no_mutated_request_ends_the_endpoint_or_leaves_a_thread_behind(tmp_path):
    rng = random.Random(20261128)
    body = json.dumps(EVENT | {"start": "2100-01-01T00:00:00Z", "within": "10 s", "modification": 1}).encode()
    good = (
        f"POST /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    with running(tmp_path) as endpoint:
        for number in range(300):
            client = socket.create_connection(("127.0.0.1", endpoint.port), timeout=10)
            try:
                client.sendall(mutated(rng, good))
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(4096)
            except OSError:
                answer = b""
            client.close()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (number, answer)
            assert not answer.startswith(b"HTTP/1.1 500"), (number, answer)
        assert call(endpoint.port)[0] == 200
        assert call(endpoint.port, "POST", "/v1/events", EVENT | {"event_id": "after"})[0] == 200
    assert "defect" not in (tmp_path / "log").read_text()


BAD_EVENTS = [
    {"within": "1e308 min"},
    {"within": "1e308 min", "status": "cancelled"},
    {"duration": "P" + "9" * 400 + "D"},
    {"duration": "1e308 d"},
    {"start": "9999-12-31T23:59:59-14:00", "end": "9999-12-31T23:59:59-15:00", "duration": ""},
    {"start": "0001-01-01T00:00:00+14:00"},
    {"start": 1e308},
    {"start": -1e308, "status": "cancelled"},
    {"start": "nan"},
    {"end": "9999-12-31", "duration": "", "status": "completed"},
    {"modification": 2**31},
    {"modification": 10**30},
    {"modification": -(10**30)},
    {"power_limit": "1e308 GW"},
    {"power_limit": None, "reduce_percent": 1e308},
    {"power_limit": None, "reduce_percent": -1e-308},
    {"event_id": "x" * 50_000},
    {"zone": "z" * 50_000},
    {"status": {"a": []}},
    {"event_id": ["dr"]},
]


@pytest.mark.parametrize("change", BAD_EVENTS, ids=lambda change: str(change)[:40])
def test_an_event_that_cannot_be_is_refused_on_one_line_and_leaves_no_trace(tmp_path, change):
    with running(tmp_path) as endpoint:
        status, answer = call(endpoint.port, "POST", "/v1/events", EVENT | change)
        assert status == 400
        assert "\n" not in answer["error"]
        assert len(answer["error"]) < 600
        assert call(endpoint.port, path="/v1/events") == (200, {"events": []})
    EventManager(tmp_path / "state.json", None, act, Log(quiet=True))


def test_a_byte_order_mark_costs_no_signal():
    marked = b"\xef\xbb\xbf" + json.dumps(EVENT).encode()
    assert parse_signals(marked, "request", "phx", time.time())[0].event_id == EVENT["event_id"]
    assert is_cut_off(marked[:-1])


@pytest.mark.parametrize("text", [b'{"event_id": "\xff"}', b"[" * 60_000, b'{"a":' * 10_000, b"\x00" * 1000, b"[[[]]]"])
def test_garbage_is_refused_with_the_reason(text):
    with pytest.raises(Rejected) as caught:
        parse_signals(text, "request", "phx", time.time())
    assert len(str(caught.value)) < 600


def test_a_defect_on_one_input_refuses_that_input_with_an_alarm(tmp_path, monkeypatch):
    def defective(text, *more):
        if b"poison" in text:
            raise ZeroDivisionError("defect")
        return parse_signals(text, *more)

    monkeypatch.setattr(http_endpoint, "parse_signals", defective)
    monkeypatch.setattr(inbox, "parse_signals", defective)
    with running(tmp_path) as endpoint:
        assert call(endpoint.port, "POST", "/v1/events", EVENT | {"event_id": "poison"})[0] == 400
        assert call(endpoint.port, "POST", "/v1/events", EVENT)[0] == 200
    assert "event=signal_defect" in (tmp_path / "log").read_text()
    folder = tmp_path / "signals"
    folder.mkdir(mode=0o750)
    (folder / "a.json").write_text(json.dumps(EVENT | {"event_id": "poison"}))
    (folder / "b.json").write_text(json.dumps(EVENT))
    taken = []
    watch = SignalInbox(folder, "phx", taken.append, Log(quiet=True))
    watch.look(time.time())
    watch.look(time.time())
    assert [one.event_id for one in taken] == ["dr-1"]
    assert "defect" in refused(folder)["a.json"]


def test_a_defect_while_acting_is_a_problem_of_that_event_and_others_act(tmp_path):
    def defective(limit_w, *more):
        if limit_w == 1e6:
            raise ZeroDivisionError("defect")
        return act(limit_w, *more)

    manager = EventManager(tmp_path / "state.json", None, defective, Log(quiet=True))
    for name, limit in (("a", "1 MW"), ("b", "2 MW")):
        manager.receive(
            parse_signals(
                json.dumps(EVENT | {"event_id": name, "power_limit": limit}).encode(), "x", "phx", time.time()
            )[0]
        )
    manager.tick()
    assert "defect" in manager.event("a").problem
    assert manager.event("b").state == "active"


SIGNALS = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from(["receive", "file"]), st.booleans()),
    min_size=1,
    max_size=10,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(history=SIGNALS)
def test_the_newest_modification_counts_whichever_way_and_order_it_comes_and_across_restarts(tmp_path_factory, history):
    folder = tmp_path_factory.mktemp("order")
    signals_in = folder / "signals"
    signals_in.mkdir(mode=0o750)

    def start():
        return EventManager(folder / "state.json", None, act, Log(quiet=True))

    manager = start()
    for number, (modification, is_cancelled, way, restarts) in enumerate(history):
        limit = f"{100 + modification} MW"
        event = EVENT | {"modification": modification, "power_limit": limit}
        event |= {"status": "cancelled"} if is_cancelled else {}
        if way == "receive":
            manager.receive(parse_signals(json.dumps(event).encode(), "x", "phx", time.time())[0])
        else:
            watch = SignalInbox(signals_in, "phx", manager.receive, Log(quiet=True))
            (signals_in / f"{number}.json").write_text(json.dumps(event))
            assert [watch.look(time.time()) for _ in range(2)] == [0, 1]
        manager.tick()
        if restarts:
            manager = start()
    newest = max(modification for modification, *_ in history)
    known = manager.event("dr-1")
    assert known.modification == newest
    is_over = any(is_cancelled for modification, is_cancelled, *_ in history if modification == newest)
    assert (known.state == "cancelled") is is_over
    if not is_over:
        assert (known.state, known.limit_w) == ("active", (100 + newest) * 1e6)


@pytest.mark.parametrize("target", ["http://x/v1/health", "HTTPS://x:8470/v1/health", "http://x/v1/events"])
def test_the_absolute_form_of_a_target_is_answered_like_its_path(tmp_path, target):
    with running(tmp_path) as endpoint:
        assert call(endpoint.port, path=target)[0] == 200
        assert call(endpoint.port, path="http://x")[0] == 404


def test_a_late_cancellation_is_told_that_it_is_too_old(tmp_path):
    with running(tmp_path) as endpoint:
        assert call(endpoint.port, "POST", "/v1/events", EVENT | {"modification": 3})[0] == 200
        status, answer = call(
            endpoint.port, "POST", "/v1/events", {"event_id": "dr-1", "status": "cancelled", "modification": 1}
        )
        assert status == 409
        assert "older than 3" in answer["error"]
        assert call(endpoint.port, path="/v1/events/dr-1")[1]["state"] == "active"


def test_a_test_event_is_answered_and_changes_nothing(tmp_path):
    with running(tmp_path) as endpoint:
        assert call(endpoint.port, "POST", "/v1/events", EVENT)[0] == 200
        drill = EVENT | {"modification": 9, "test_event": True}
        assert call(endpoint.port, "POST", "/v1/events", drill) == (200, {"event_id": "dr-1", "state": "test"})
        assert call(endpoint.port, "POST", "/v1/events", drill | {"power_limit": "much"})[0] == 400
        known = call(endpoint.port, path="/v1/events/dr-1")[1]
        assert (known["state"], known["modification"]) == ("active", 0)


def test_a_damaged_state_file_is_set_aside_with_an_alarm_and_the_limits_of_the_rounds_stay(tmp_path):
    first = EventManager(tmp_path / "state.json", tmp_path / "events.json", act, Log(quiet=True))
    first.receive(parse_signals(json.dumps(EVENT).encode(), "x", "phx", time.time())[0])
    first.tick()
    limits = json.loads((tmp_path / "events.json").read_text())
    for number, damage in enumerate((b"\xff\xfe", b'{"dr-1": {"event_id"', b"[]", b"")):
        (tmp_path / "state.json").write_bytes(damage)
        with (tmp_path / "log").open("w") as out:
            EventManager(tmp_path / "state.json", tmp_path / "events.json", act, Log(out), lambda n=number: 1e9 + n)
        assert "event=shed_state_damaged" in (tmp_path / "log").read_text()
        assert json.loads((tmp_path / "events.json").read_text()) == limits
    assert len(list(tmp_path.glob("state.json.damaged-*"))) == 4


def test_the_number_of_events_is_bounded_and_one_that_is_over_makes_room(tmp_path, monkeypatch):
    from powerhall_optimizer.shed import event_manager

    monkeypatch.setattr(event_manager, "_MOST_KNOWN", 3)
    manager = EventManager(tmp_path / "state.json", None, act, Log(quiet=True))

    def receive(name, **more):
        event = EVENT | {"event_id": name} | more
        return manager.receive(parse_signals(json.dumps(event).encode(), "x", "phx", time.time())[0])

    for name in "abc":
        receive(name)
    with pytest.raises(Rejected, match="no more can be registered"):
        receive("d")
    receive("b", status="cancelled")
    receive("d")
    assert {known.event_id for known in manager.events()} == {"a", "c", "d"}


@pytest.mark.slow
def test_the_real_service_outlives_every_bad_file_and_request_and_then_acts(plan, tmp_path):
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "signals").mkdir(mode=0o750)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PROGRAM, "shed", "--watch", "signals", "--serve", f"127.0.0.1:{port}", "--token-file", "token"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--out", "shed-plan.json"], cwd=tmp_path, stderr=log)
    try:
        deadline_s = time.monotonic() + 60
        while b"shed_ready" not in (tmp_path / "log").read_bytes():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        for number, change in enumerate(BAD_EVENTS):
            (tmp_path / "signals" / f"{'n' * 240}{number}.json").write_text(json.dumps(EVENT | change))
        for change in BAD_EVENTS[:8]:
            assert call(port, "POST", "/v1/events", EVENT | change)[0] == 400
        while len(refused(tmp_path / "signals")) < len(BAD_EVENTS):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert call(port, path="/v1/ready", token=None) == (200, {"status": "ready"})
        status, known = call(port, "POST", "/v1/events", EVENT | {"power_limit": "190 kW", "within": "3 s"}, timeout=20)
        assert (status, known["state"]) == (200, "active")
        (tmp_path / "plan.json").rename(tmp_path / "good.json")
        os.mkfifo(tmp_path / "plan.json")
        for name in "bc":  # the last plan stays, and the file is read again as soon as it is good
            event = EVENT | {"event_id": name, "power_limit": "190 kW", "within": "3 s"}
            status, known = call(port, "POST", "/v1/events", event, timeout=20)
            assert (status, known["state"]) == (200, "active")
            is_ready = (200, {"status": "ready"}) if name == "c" else (503, {"status": "not ready", "parts": ["plan"]})
            assert call(port, path="/v1/ready", token=None) == is_ready
            (tmp_path / "good.json").rename(tmp_path / "plan.json") if name == "b" else None
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    assert "Traceback" not in (tmp_path / "log").read_text()
