"""The daemon as real processes: delivery, the end of its processes, and the time that a stop takes."""

import base64
import contextlib
import io
import itertools
import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from powerhall.runtime.log import Log
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.daemon.sampler_supervisor import SamplerSupervisor
from powerhall_agent.delivery.segment import scan, unpack
from powerhall_agent.delivery.spool import segments_of
from powerhall_agent.settings.sampler_settings import SamplerSettings

COMMAND = [str(Path(sys.executable).parent / "powerhall-agent")]
DEAD = "influxdb://127.0.0.1:21198/nothing"


class Running:
    """One `powerhall-agent run --simulate` and its log."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        command = [*COMMAND, "run", "--simulate", "--gpus", "2", "--node", "n1", "--spool", str(folder / "spool")]
        self.log = (folder / "log").open("ab")
        environment = {**os.environ, **(env or {})}
        self.process = subprocess.Popen([*command, *arguments], stderr=self.log, stdout=self.log, env=environment)

    def text(self) -> str:
        return (self.folder / "log").read_text()

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]

    def stop(self, number: int = signal.SIGTERM, within_s: float = 15.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(within_s)


@pytest.fixture
def agent(tmp_path) -> Iterator[Callable[..., Running]]:
    """Start agents that are gone after the test."""
    started: list[Running] = []

    def start(*arguments: str, folder: Path = tmp_path, env: dict[str, str] | None = None) -> Running:
        started.append(Running(folder, *arguments, env=env))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        running.log.close()


def _until(condition: Callable[[], object], seconds: float = 20.0) -> object:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not come true within {seconds} s")


def _count(path: Path, sql: str = "SELECT count(*) FROM gpu") -> int:
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as database:
        return int(database.execute(sql).fetchone()[0] or 0)
    return 0


def _spooled(folder: Path) -> bytes:
    data = [path.read_bytes() for path in segments_of(folder)]
    return b"".join(unpack(entry, scan(entry).records) for entry in data)


def test_points_arrive_and_sigterm_delivers_the_last_of_them(agent, tmp_path):
    running = agent("--store", f"sqlite:///{tmp_path}/t.db")
    _until(lambda: _count(tmp_path / "t.db") >= 6)
    assert len(running.children()) == 1
    started_s = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - started_s < 8.0
    assert segments_of(tmp_path / "spool" / "store") == []
    span = "SELECT (max(time_ms) - min(time_ms)) / 1000.0 + 1 FROM gpu"
    assert _count(tmp_path / "t.db") >= 2 * (_count(tmp_path / "t.db", span) - 1)


def test_without_a_store_everything_waits_and_arrives_after_a_restart(agent, tmp_path):
    first = agent("--store", DEAD)
    _until(lambda: _spooled(tmp_path / "spool" / "store").count(b"\ngpu,") >= 6)
    assert first.stop() == 0
    waiting = {line for line in _spooled(tmp_path / "spool" / "store").splitlines() if line.startswith(b"gpu,")}
    second = agent("--store", f"sqlite:///{tmp_path}/t.db")
    _until(lambda: not segments_of(tmp_path / "spool" / "store")[:-1] and _count(tmp_path / "t.db") > len(waiting))
    second.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as database:
        there = {time_ms for (time_ms,) in database.execute("SELECT time_ms FROM gpu")}
    assert {int(line.rpartition(b" ")[2]) for line in waiting} <= there


def test_with_two_stores_a_dead_one_does_not_delay_the_other(agent, tmp_path):
    running = agent("--store", f"sqlite:///{tmp_path}/t.db", "--store", DEAD)
    _until(lambda: _count(tmp_path / "t.db") >= 6)
    running.stop()
    assert segments_of(tmp_path / "spool" / "store") == []
    assert _spooled(tmp_path / "spool" / "store2").count(b"\ngpu,") >= 6


def test_the_sampler_dies_with_a_killed_daemon_and_nothing_is_doubled(agent, tmp_path):
    running = agent("--store", f"sqlite:///{tmp_path}/t.db")
    _until(lambda: _count(tmp_path / "t.db") >= 4)
    (sampler,) = running.children()
    running.stop(signal.SIGKILL)
    _until(lambda: not Path(f"/proc/{sampler}").exists() or "Z" in Path(f"/proc/{sampler}/stat").read_text(), 5.0)
    before = _count(tmp_path / "t.db")
    again = agent("--store", f"sqlite:///{tmp_path}/t.db")
    _until(lambda: _count(tmp_path / "t.db") >= before + 4)
    again.stop()
    double = "SELECT count(*) - count(DISTINCT energy_j) FROM gpu WHERE series = 1"
    assert _count(tmp_path / "t.db", double) == 0


def test_a_killed_sampler_is_started_again(agent, tmp_path):
    running = agent("--store", f"sqlite:///{tmp_path}/t.db")
    _until(lambda: _count(tmp_path / "t.db") >= 2)
    (first,) = running.children()
    os.kill(first, signal.SIGKILL)
    _until(lambda: "sampler_ended" in running.text())
    before = _count(tmp_path / "t.db")
    _until(lambda: _count(tmp_path / "t.db") > before + 2)
    assert running.children() != [first]
    assert running.stop() == 0


def test_a_hanging_sampler_is_reported_within_five_seconds_and_stops_no_other_part(agent, tmp_path):
    running = agent("--store", f"sqlite:///{tmp_path}/t.db")
    _until(lambda: _count(tmp_path / "t.db") >= 4)
    (sampler,) = running.children()
    os.kill(sampler, signal.SIGSTOP)
    started_s = time.monotonic()
    stuck = "SELECT count(*) FROM agent WHERE driver_stuck = 1.0"
    _until(lambda: _count(tmp_path / "t.db", stuck), 8.0)
    assert time.monotonic() - started_s < 5.0
    assert _count(tmp_path / "t.db", "SELECT count(*) FROM event") >= 1
    os.kill(sampler, signal.SIGCONT)
    _until(lambda: "driver_answers_again" in running.text())
    os.kill(sampler, signal.SIGSTOP)
    assert running.stop() == 0, "a stopped sampler does not hold up the end"


def test_systemd_is_notified_of_ready_alive_reloading_and_stopping(agent, tmp_path):
    address = str(tmp_path / "notify")
    config = tmp_path / "agent.toml"
    config.write_text('[sampler]\nsite = "one"\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        running = agent("--config", str(config), "--store", f"sqlite:///{tmp_path}/t.db", env=env)

        def heard(word: str, seconds: float = 20.0) -> None:
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                if select.select([listener], [], [], 0.2)[0] and word in listener.recv(4096).decode():
                    return
            raise AssertionError(f"{word} was not heard: {running.text()}")

        heard("READY=1")
        heard("WATCHDOG=1")
        config.write_text('[sampler]\nsite = "two"\n')
        running.process.send_signal(signal.SIGHUP)
        heard("RELOADING=1\nMONOTONIC_USEC=")
        heard("READY=1")
        of_two = "SELECT count(*) FROM gpu_series WHERE site = 'two'"
        _until(lambda: _count(tmp_path / "t.db", of_two) == 2)
        config.write_text("[sampler]\nsight = 1\n")
        running.process.send_signal(signal.SIGHUP)
        _until(lambda: "reload_refused" in running.text() and "sight" in running.text())
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        heard("STOPPING=1")
        assert running.process.wait(15) == 0


def test_a_reload_that_cannot_work_leaves_the_old_settings_in_force(agent, tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text(f'[[output]]\nurl = "sqlite:///{tmp_path}/t.db"\n')
    running = agent("--config", str(config))
    _until(lambda: _count(tmp_path / "t.db") >= 2)
    config.write_text('[[output]]\nurl = "sqlite:////no/such/folder/t.db"\n')
    running.process.send_signal(signal.SIGHUP)
    _until(lambda: "/no/such/folder" in running.text())
    before = _count(tmp_path / "t.db")
    _until(lambda: _count(tmp_path / "t.db") > before + 4)
    assert running.stop() == 0


def test_a_program_that_holds_the_dead_samplers_pipe_does_not_keep_a_new_one_from_starting():
    log = Log(io.StringIO())
    command = ("sh", "-c", "sleep 5 & echo 'gpu,gpu=0 power_w=1.0 1'; exit 3")
    child = SamplerSupervisor(SamplerSettings(node="n"), 4.0, log, command=command)
    begun_s = time.monotonic()
    while child.restarts == 0 and time.monotonic() - begun_s < 10:
        child.check()
        child.read()
        time.sleep(0.05)
    assert child.restarts == 1
    assert child.descriptor is None


def _certificate(folder: Path) -> tuple[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, cert = folder / "key.pem", folder / "cert.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *options, *names, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return str(cert), str(key)


def test_prometheus_is_served_with_tls_and_a_password(agent, tmp_path):
    cert, key = _certificate(tmp_path)
    (tmp_path / "password").write_text("secret-canary\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[prometheus]\nlisten = "127.0.0.1:{port}"\ncert_file = "{cert}"\nkey_file = "{key}"\n'
        f'user = "scraper"\npassword_file = "{tmp_path}/password"\n'
    )
    running = agent("--config", str(config), "--store", f"sqlite:///{tmp_path}/t.db")
    _until(lambda: _count(tmp_path / "t.db") >= 2)
    context = ssl.create_default_context(cafile=cert)
    url = f"https://127.0.0.1:{port}/metrics"
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(url, context=context, timeout=5)
    refused.value.close()
    pair = base64.b64encode(b"scraper:secret-canary").decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {pair}"})
    with urllib.request.urlopen(request, context=context, timeout=5) as answer:
        text = answer.read().decode()
    assert "# TYPE powerhall_gpu_power_watts gauge" in text
    assert "powerhall_gpu_power_watts{" in text
    assert 'gpu="1"' in text
    assert running.stop() == 0
    assert "secret-canary" not in running.text()


def test_invalid_options_are_refused_in_one_line(tmp_path):
    cases = [
        (["run", "--simulate", "--spool", str(tmp_path)], "no store"),
        (["run", "--simulate", "--store", "influxdb://h:1/b?token=abc", "--spool", str(tmp_path)], "token_file"),
        (
            ["run", "--simulate", "--model", "X9", "--store", f"sqlite:///{tmp_path}/t.db", "--spool", str(tmp_path)],
            "X9",
        ),
        (["once", "--gpus", "2"], "need --simulate"),
        (["once", "--config", str(tmp_path / "none.toml")], "none.toml"),
        (["spool", "list", "--spool", str(tmp_path / "empty")], "holds no spool"),
    ]
    for arguments, words in cases:
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, (arguments, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert subprocess.run([*COMMAND, "frobnicate"], capture_output=True, check=False).returncode == 2


def test_once_prints_line_protocol_a_table_and_json():
    line = subprocess.run(
        [*COMMAND, "once", "--simulate", "--gpus", "2", "--format", "line"], capture_output=True, check=True
    )
    points = list(parse_lines(line.stdout))
    assert {p.tags["gpu"] for p in points if p.measurement == "gpu"} == {"0", "1"}
    table = subprocess.run([*COMMAND, "once", "--simulate", "--gpus", "2"], capture_output=True, text=True, check=True)
    assert len(table.stdout.splitlines()) == 3
    as_json = subprocess.run([*COMMAND, "once", "--simulate", "--format", "json"], capture_output=True, check=True)
    assert any(entry["measurement"] == "gpu" for entry in json.loads(as_json.stdout))


def test_once_and_doctor_report_a_missing_driver(tmp_path):
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    done = subprocess.run([*COMMAND, "once"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "NVML" in done.stderr
    doctor = [*COMMAND, "doctor", "--spool", str(tmp_path)]
    found = subprocess.run(doctor, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "install the NVIDIA driver" in found.stdout


def test_top_draws_as_many_pictures_as_asked():
    command = [*COMMAND, "top", "--simulate", "--gpus", "2", "--count", "2", "--plain", "--interval", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("NVIDIA H100") == 4
    script = " ".join(["env", "TERM=xterm", *[part for part in command if part != "--plain"]])
    drawn = subprocess.run(["script", "-qec", script, "/dev/null"], capture_output=True, text=True, check=True)
    assert "█" in drawn.stdout, "with rich and a terminal there are bars"


def test_doctor_reports_missing_parts_with_remedies(tmp_path):
    spool = ["--spool", str(tmp_path / "s")]
    well = subprocess.run(
        [*COMMAND, "doctor", "--simulate", *spool, "--store", f"sqlite:///{tmp_path}/t.db", "--json"],
        capture_output=True,
        check=False,
    )
    assert well.returncode == 0, well
    assert {entry["subject"] for entry in json.loads(well.stdout)} >= {"software", "driver", "clock", "spool", "store"}
    sick = subprocess.run([*COMMAND, "doctor", "--simulate", *spool, "--store", DEAD], capture_output=True, check=False)
    assert sick.returncode == 1
    assert b"start the store or open the firewall" in sick.stdout


def test_spool_list_show_and_drain(agent, tmp_path):
    running = agent("--store", DEAD)
    _until(lambda: _spooled(tmp_path / "spool" / "store").count(b"\ngpu,") >= 4)
    spool = ["--spool", str(tmp_path / "spool")]
    drain = [*COMMAND, "spool", "drain", *spool, "--store", f"sqlite:///{tmp_path}/t.db"]
    busy = subprocess.run(drain, capture_output=True, text=True, check=False)
    assert busy.returncode == 1
    assert "in use by process" in busy.stderr
    running.stop()
    shown = subprocess.run([*COMMAND, "spool", "show", *spool], capture_output=True, check=True).stdout
    listed = json.loads(
        subprocess.run([*COMMAND, "spool", "list", *spool, "--json"], capture_output=True, check=True).stdout
    )
    assert listed[0]["points"] == shown.count(b"\n") > 0
    done = subprocess.run(drain, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{shown.count(chr(10).encode())} points sent, 0 refused")
    assert segments_of(tmp_path / "spool" / "store") == []


def _faketime() -> str:
    found = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    if not found:
        pytest.skip("libfaketime is not installed (apt install faketime)")
    return str(found[0])


def test_what_waits_while_the_clock_jumps_gets_the_right_time(agent, tmp_path):
    clock = tmp_path / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": _faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    running = agent("--store", DEAD, env=env)
    folder = tmp_path / "spool" / "store"
    _until(lambda: _spooled(folder).count(b"\ngpu,") >= 4)
    for jump in ("+3600", "+0", "+315360000", "+0"):
        before = _spooled(folder).count(b"\ngpu,")
        clock.write_text(jump)
        _until(lambda before=before: _spooled(folder).count(b"\ngpu,") >= before + 6)
    running.stop()
    stamps: dict[bytes, list[int]] = {}
    for line in _spooled(folder).splitlines():
        head, _, rest = line.partition(b" ")
        if head.startswith((b"gpu,", b"node,")):
            stamps.setdefault(head, []).append(int(rest.rpartition(b" ")[2]))
    assert len(stamps) == 3
    for series, times in stamps.items():
        assert all(a < b for a, b in itertools.pairwise(times)), series
        assert times[-1] - times[0] < 120_000, "what waited was stamped anew; the steps are gone"
