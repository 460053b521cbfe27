"""Nothing that arrives on the capper's socket ends it or keeps it from its GPUs."""

import errno
import grp
import json
import os
import pwd
import random
import signal
import socket
import time

import psutil
import pytest
from tests.rigs.capper_process import KEY, SAFE_W, lease

from powerhall.lease import GpuCap, SignedLease
from powerhall.runtime.log import Log
from powerhall_agent.capper.connection import Connection
from powerhall_agent.capper.listener import Listener
from powerhall_agent.capper.socket_users import SocketUsers

ODD_LINES = {
    "byte 0xff in a signature": b'{"lease":{"body":"AAAA","signature":"\xff"}}',
    "byte 0xff in a word": b'{"alive":tru\xff}',
    "byte 0xff in a name": b'{"\xff":1}',
    "byte 0xff in a body": b'{"lease":{"body":"\xff","signature":""}}',
    "a lone surrogate": b'{"lease":{"body":"AAAA","signature":"\\ud800"}}',
    "a pair of surrogates": b'{"lease":{"body":"AAAA","signature":"\\ud83d\\ude00"}}',
    "deep lists": b'{"x":' + b"[" * 60_000,
    "deep maps": b'{"lease":' + b'{"a":' * 9000 + b"}" * 9001,
    "1e308": b'{"alive":1e308}',
    "NaN": b'{"alive":NaN}',
    "a huge number": b'{"alive":' + b"9" * 5000 + b"}",
    "nothing": b"",
    "zeros": b"\0" * 100,
    "a long signature": b'{"lease":{"body":"AAAA","signature":"' + b"a" * 60_000 + b'"}}',
    "a body of noise": b'{"lease":{"body":"' + b"////" * 10_000 + b'","signature":"' + b"0" * 64 + b'"}}',
    "an HTTP request": b"GET / HTTP/1.1",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    from tests.rigs.capper_process import CapperProcess

    made = CapperProcess(tmp_path_factory.mktemp("socket"))
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("line", ODD_LINES.values(), ids=ODD_LINES)
def test_an_odd_line_is_refused_and_the_next_message_is_served(shared, line):
    answer = shared.talk(line + b"\n")
    assert "refused" in json.loads(answer)
    assert shared.answers()
    assert shared.process.poll() is None


SIGNED_ODDITIES = {
    "issued at -1e308": {"issued_s": -1e308},
    "a number beyond 2^53": {"sequence": 1 << 60},
    "a number beyond 64 bit": {"sequence": 10**30},
    "a negative number": {"sequence": -1},
    "1e308 W": {"caps": (GpuCap(0, 1e308),)},
    "negative watts": {"caps": (GpuCap(0, -500.0),)},
    "GPU -1": {"caps": (GpuCap(-1, 500.0),)},
    "GPU 10^12": {"caps": (GpuCap(10**12, 500.0),)},
    "one GPU twice": {"caps": (GpuCap(0, 300.0), GpuCap(0, 500.0))},
    "a plan without end": {"plan_id": "p" * 5000},
    "expires before it is issued": {"expires_s": 1.0},
}


@pytest.mark.parametrize("change", SIGNED_ODDITIES.values(), ids=SIGNED_ODDITIES)
def test_an_odd_lease_under_a_valid_signature_changes_nothing(shared, change):
    import base64
    import hashlib
    import hmac

    now_s = time.time()
    body = {"node": "n1", "plan_id": "p", "sequence": 1, "issued_s": now_s, "expires_s": now_s + 600.0}
    body |= {"node_cap_w": 4000.0, "caps": ({"gpu": 0, "power_limit_w": 500.0},)}
    body |= {k: [{"gpu": c.gpu, "power_limit_w": c.power_limit_w} for c in v] if k == "caps" else v
             for k, v in change.items()}  # fmt: skip
    raw = json.dumps(body).encode()
    signature = hmac.new(KEY, raw, hashlib.sha256).hexdigest()
    message = {"lease": {"body": base64.b64encode(raw).decode(), "signature": signature}}
    answer = json.loads(shared.talk(json.dumps(message).encode() + b"\n"))
    assert answer["refused"]
    assert answer["status"]["state"] == "safe"
    assert shared.process.poll() is None
    assert shared.answers()


def test_endless_half_idle_and_broken_connections_cost_the_agent_nothing(rig):
    """An agent's heartbeats hold the lease while others do what they can."""
    rig.start()
    rig.client.offer(lease(1))
    rng, others = random.Random(3), []
    memory = psutil.Process(rig.process.pid)
    before = memory.memory_info().rss
    end_s = time.monotonic() + 4.0
    while time.monotonic() < end_s:
        rig.client.alive()
        assert rig.limits() == [500.0] * 4
        for _ in range(4):
            peer = socket.socket(socket.AF_UNIX)
            peer.setblocking(False)
            try:
                peer.connect(str(rig.folder / "sock"))
                what = rng.randrange(5)
                if what == 0:
                    peer.send(b"x" * 200_000)  # an endless line
                elif what == 1:
                    peer.send(b'{"alive": tr')  # half a line
                elif what == 2:
                    peer.send(b'{"status":true}\n' * 10_000)  # answers that nobody reads
                elif what == 3:
                    peer.send(b'{"status":true}\n')
                    peer.close()  # gone before the answer
            except (BlockingIOError, ConnectionError, OSError):
                pass
            others.append(peer)
        time.sleep(0.1)
    assert len(others) > 60
    assert rig.process.poll() is None
    assert memory.memory_info().rss - before < 8 << 20
    assert memory.num_fds() < 64
    for peer in others:
        peer.close()


def test_an_exception_that_nobody_foresaw_refuses_the_message_alone(monkeypatch, capsys):
    from powerhall_agent.capper.server import CapperServer

    class Broken:
        def heard(self, _mono_s):
            raise ZeroDivisionError

    server = CapperServer(Broken(), None, frozenset, Log())
    assert "refused" in json.loads(server._reply(b'{"alive":true}'))
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_lost_socket_file_is_made_again_and_another_file_is_not_removed(rig):
    rig.start()
    (rig.folder / "sock").unlink()
    rig.client.close()
    rig.until(rig.answers, True, 3.0)
    rig.stop(signal.SIGTERM)
    (rig.folder / "sock").write_text("somebody's file")
    rig.start(wait=False)
    rig.until(lambda: "is no socket" in rig.log, True, 10.0)
    assert rig.limits() == [SAFE_W] * 4
    assert (rig.folder / "sock").read_text() == "somebody's file"
    (rig.folder / "sock").unlink()
    rig.until(rig.answers, True, 3.0)


def test_the_socket_has_the_mode_and_group_of_the_settings(rig):
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file to another group")
    rig.write_config(socket_group="daemon", socket_mode="0666")
    rig.start()
    found = (rig.folder / "sock").stat()
    assert (found.st_mode & 0o777, found.st_gid) == (0o666, 1)


def test_a_socket_that_systemd_hands_over_is_used(tmp_path):
    """sd_listen_fds(3): descriptor 3, if LISTEN_PID is this process."""
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen(4)
        saved = os.dup(3) if os.path.exists("/proc/self/fd/3") else None
        os.dup2(given.fileno(), 3)
        try:
            environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
            listener = Listener(tmp_path / "other.sock", environment=environment)
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(path))
                assert listener.descriptor() == 3
                accepted = listener.accept()
                assert accepted.uid == os.geteuid()
                accepted.socket.close()
            listener.close()
            assert not (tmp_path / "other.sock").exists()
        finally:
            if saved is not None:
                os.dup2(saved, 3)
                os.close(saved)
    foreign = Listener(tmp_path / "own.sock", environment={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert foreign.descriptor() is not None
    assert (tmp_path / "own.sock").exists()
    foreign.close()


def test_half_a_line_and_silence_have_an_end():
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    theirs.send(b'{"ali')
    connection.receive()
    start_s = connection.used_s
    assert not connection.is_late(start_s + 4.0)
    theirs.send(b"v")  # a byte now and then does not prolong it
    connection.receive()
    assert connection.is_late(start_s + 6.0)
    connection.close()
    theirs.close()


@pytest.mark.parametrize("name", ["nobody-of-this-name", "bad\0name"])
def test_an_unknown_user_admits_nobody_and_is_named(name):
    users = SocketUsers(name)
    assert users.uids() == {0, os.geteuid()}
    assert users.group() == ""
    assert repr(name) in users.problem()


def test_a_user_that_is_made_later_is_let_in_with_its_group(monkeypatch, tmp_path):
    known, now_s = pwd.getpwnam, [100.0]
    monkeypatch.setattr(pwd, "getpwnam", lambda _: known("no-such-user-yet"))
    users = SocketUsers("carrier", clock=lambda: now_s[0])
    listener = Listener(tmp_path / "sock", group=users.group, environment={})
    assert listener.descriptor() is not None
    assert users.problem()
    daemon = known("daemon")
    monkeypatch.setattr(pwd, "getpwnam", lambda _: daemon)
    assert users.problem(), "it is looked up once a second"
    now_s[0] += 1.0
    assert (users.problem(), users.group()) == ("", grp.getgrgid(daemon.pw_gid).gr_name)
    assert daemon.pw_uid in users.uids()
    if os.geteuid() == 0:
        time.sleep(1.05)
        listener.descriptor()
        assert (tmp_path / "sock").stat().st_gid == daemon.pw_gid
    listener.close()


def test_a_socket_file_that_goes_while_it_gets_its_group_ends_nothing(tmp_path):
    path = tmp_path / "sock"
    names = [""]

    def group():
        if names[0]:
            path.unlink(missing_ok=True)
        return names[0]

    listener = Listener(path, group=group, environment={})
    assert listener.descriptor() is not None
    names[0], listener._next_s = "root", 0.0
    listener.descriptor()
    assert "cannot be given" in listener.problem
    names[0], listener._next_s = "", 0.0
    assert listener.descriptor() is not None
    assert (path.exists(), listener.problem) == (True, "")
    listener.close()


def test_no_signature_but_64_hex_digits_is_even_compared(shared):
    good = lease(5)
    for signature in ("", "\u00fc" * 64, good.signature.upper(), good.signature + "0"):
        with pytest.raises(Exception, match="signature"):
            shared.client.offer(SignedLease(good.body, signature))


def test_a_socket_that_has_its_group_already_needs_no_right_to_give_it_away(tmp_path, monkeypatch):
    """As under its unit, which makes it with that group and may change no owner: it was an alarm on every node."""

    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    own = grp.getgrgid(os.getegid()).gr_name
    listener = Listener(tmp_path / "sock", group=lambda: own, environment={})
    assert listener.descriptor() is not None
    assert listener.problem == ""
    listener.close()
