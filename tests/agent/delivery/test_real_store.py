"""A simulated H100 node through the whole agent into a real InfluxDB, and read back through the store."""

import itertools
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from powerhall.store import Query, Select, open_store
from powerhall_agent.delivery.spool import segments_of
from rigs import answers, flaky

COMMAND = [str(Path(sys.executable).parent / "powerhall-agent"), "run", "--simulate", "--node", "n7", "--site", "s"]
POWER = Query("gpu", (Select("power_w"), Select("energy_j")), group_by=("node", "gpu"))


def _run(seconds: float, *arguments: str, log: Path) -> int:
    with log.open("ab") as out:
        process = subprocess.Popen([*COMMAND, *arguments], stderr=out)
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        return process.wait(20)


@pytest.mark.rig
@pytest.mark.parametrize("kind", ["v2", "v1"])
def test_a_simulated_node_arrives_in_influxdb_and_reads_back(influx, tmp_path, kind):
    database = influx.database(f"node_{kind}")
    url = influx.url(database) if kind == "v2" else f"influxdb://127.0.0.1:{influx.port}/{database}?version=1"
    begun_s = time.time()
    assert _run(5.0, "--store", url, "--spool", str(tmp_path / "spool"), log=tmp_path / "log") == 0
    store = open_store(url)
    rows = store.query(POWER, begun_s - 5, time.time() + 5)
    store.close()
    assert {row.tags["gpu"] for row in rows} == {str(number) for number in range(8)}
    assert {row.tags["node"] for row in rows} == {"n7"}
    assert all(60.0 <= (row.number("power_w") or 0.0) <= 715.0 for row in rows)
    energies = [row.number("energy_j") or 0.0 for row in rows if row.tags["gpu"] == "3"]
    assert len(energies) >= 3
    assert energies == sorted(energies)
    assert segments_of(tmp_path / "spool" / "store") == []


@pytest.mark.rig
def test_an_agent_sends_each_class_of_retention_to_its_own_policy(influx, tmp_path):
    database = influx.database("node_classes")
    for policy in ("recent", "history"):
        influx.statement(f'CREATE RETENTION POLICY "{policy}" ON "{database}" DURATION INF REPLICATION 1')
    url = influx.url(database, "version=2&retention=classes")
    begun_s = time.time()
    assert _run(4.0, "--store", url, "--spool", str(tmp_path / "spool"), log=tmp_path / "log") == 0
    store = open_store(url)
    for name, field in (("gpu", "power_w"), ("gpu_slow", "temp_slowdown_c"), ("gpu_identity", "uuid")):
        assert store.query(Query(name, (Select(field),), group_by=("node", "gpu")), begun_s - 5, time.time() + 5), name
    store.close()
    assert '"gpu_slow"' not in influx.statement(f'SELECT * FROM "{database}"."autogen"./.*/ LIMIT 1')
    assert segments_of(tmp_path / "spool" / "store") == []


@pytest.mark.rig
def test_a_store_that_fails_every_third_answer_gets_every_tick_once(influx, tmp_path):
    database = influx.database("node_flaky")
    with flaky.start(flaky.Flaky(influx.shim_port, seed=3)) as proxy:
        config = tmp_path / "agent.toml"
        config.write_text("[ship]\ninterval_s = 0.1\nbackoff_max_s = 0.2\n[sampler]\ninterval_s = 0.2\n")
        url = f"influxdb://127.0.0.1:{proxy.port}/{database}?version=2"
        arguments = ["--config", str(config), "--gpus", "1", "--store", url, "--spool", str(tmp_path / "spool")]
        assert _run(6.0, *arguments, log=tmp_path / "log") == 0
        assert proxy.seen["503"] + proxy.seen["swallowed"] + proxy.seen["garbage"] > 0
        left = bool(segments_of(tmp_path / "spool" / "store"))
        if left:  # the last answer before the end was a bad one
            drain = [COMMAND[0], "spool", "drain", "--spool", str(tmp_path / "spool"), "--store", influx.url(database)]
            subprocess.run(drain, check=True, capture_output=True)
    form = urllib.parse.urlencode({"db": database, "epoch": "ms", "q": "SELECT power_w FROM gpu"}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{influx.port}/query", form, timeout=10) as answer:
        text = answer.read()
    store = open_store(influx.url(database))
    times = [row.time_s for row in store.query(POWER, time.time() - 60, time.time() + 5)]
    store.close()
    assert len(times) >= 15, text
    gaps = [round(b - a, 1) for a, b in itertools.pairwise(times)]
    assert max(gaps) < 0.7, gaps


@pytest.mark.rig
def test_a_token_is_in_no_log_and_no_command_line_of_the_running_agent(tmp_path):
    canary = "canary-41c9-secret"
    (tmp_path / "token").write_text(canary)
    with answers.start(lambda _: answers.http(401, b'{"message":"unauthorized"}')) as store:
        url = f"influxdb://127.0.0.1:{store.port}/b?token_file={tmp_path / 'token'}"
        with (tmp_path / "log").open("ab") as out:
            process = subprocess.Popen([*COMMAND, "--store", url, "--spool", str(tmp_path / "spool")], stderr=out)
        deadline = time.monotonic() + 15
        while not store.requests and time.monotonic() < deadline:
            time.sleep(0.1)
        seen = b""
        for pid in (process.pid, *_children(process.pid)):
            seen += Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        process.terminate()
        process.wait(20)
        assert store.requests[0].headers["authorization"] == f"Token {canary}"
    spooled = b"".join(path.read_bytes() for path in (tmp_path / "spool").rglob("*") if path.is_file())
    log = (tmp_path / "log").read_bytes()
    assert b"check the token file" in log
    assert canary.encode() not in seen + spooled + log


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
