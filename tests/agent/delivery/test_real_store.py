"""A simulated H100 node through the whole agent into a real InfluxDB, and read back through the store."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from powerhall.store import Query, Row, Select, open_store
from powerhall_agent.delivery.spool import segments_of
from rigs import answers, flaky

COMMAND = [str(Path(sys.executable).parent / "powerhall-agent"), "run", "--simulate", "--node", "n7", "--site", "s"]
POWER = Query("gpu", (Select("power_w"), Select("energy_j")), group_by=("node", "gpu"))


def _run(has_enough: Callable[[], bool], *arguments: str, log: Path) -> int:
    """Run an agent until the store has enough of it, however long a busy machine takes; return its exit code."""
    with log.open("ab") as out:
        process = subprocess.Popen([*COMMAND, *arguments], stderr=out)
        deadline_s = time.monotonic() + 60.0
        while not has_enough():
            assert time.monotonic() < deadline_s, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        return process.wait(30)


def _rows(url: str, query: Query, begun_s: float) -> list[Row]:
    store = open_store(url)
    try:
        return list(store.query(query, begun_s - 5, time.time() + 5))
    finally:
        store.close()


@pytest.mark.rig
@pytest.mark.parametrize("kind", ["v2", "v1"])
def test_a_simulated_node_arrives_in_influxdb_and_reads_back(influx, tmp_path, kind):
    database = influx.database(f"node_{kind}")
    url = influx.url(database) if kind == "v2" else f"influxdb://127.0.0.1:{influx.port}/{database}?version=1"
    begun_s = time.time()

    def has_enough() -> bool:
        return sum(row.tags["gpu"] == "3" for row in _rows(url, POWER, begun_s)) >= 3

    assert _run(has_enough, "--store", url, "--spool", str(tmp_path / "spool"), log=tmp_path / "log") == 0
    rows = _rows(url, POWER, begun_s)
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
    asked = [("gpu", "power_w"), ("gpu_slow", "temp_slowdown_c"), ("gpu_identity", "uuid")]
    queries = [Query(name, (Select(field),), group_by=("node", "gpu")) for name, field in asked]

    def has_enough() -> bool:
        return all(_rows(url, query, begun_s) for query in queries)

    assert _run(has_enough, "--store", url, "--spool", str(tmp_path / "spool"), log=tmp_path / "log") == 0
    assert '"gpu_slow"' not in influx.statement(f'SELECT * FROM "{database}"."autogen"./.*/ LIMIT 1')
    assert segments_of(tmp_path / "spool" / "store") == []


@pytest.mark.rig
def test_a_store_that_fails_every_third_answer_gets_every_tick_once(influx, tmp_path):
    """Beside it a store that never fails says which ticks there were; a busy machine may skip some."""
    database, begun_s = influx.database("node_flaky"), time.time()
    steady = f"sqlite:///{tmp_path}/steady.db"
    with flaky.start(flaky.Flaky(influx.shim_port, seed=3)) as proxy:
        config = tmp_path / "agent.toml"
        config.write_text("[ship]\ninterval_s = 0.1\nbackoff_max_s = 0.2\n[sampler]\ninterval_s = 0.2\n")
        url = f"influxdb://127.0.0.1:{proxy.port}/{database}?version=2"
        arguments = ["--config", str(config), "--gpus", "1", "--spool", str(tmp_path / "spool")]

        def bad() -> int:
            return proxy.seen["503"] + proxy.seen["swallowed"] + proxy.seen["garbage"]

        def has_enough() -> bool:
            return bad() >= 3 and len(_rows(steady, POWER, begun_s)) >= 20

        assert _run(has_enough, *arguments, "--store", url, "--store", steady, log=tmp_path / "log") == 0
        assert bad() >= 3
    if segments_of(tmp_path / "spool" / "store"):  # the last answer before the end was a bad one
        drain = [COMMAND[0], "spool", "drain", "--spool", str(tmp_path / "spool"), "--store", influx.url(database)]
        subprocess.run(drain, check=True, capture_output=True)
    assert segments_of(tmp_path / "spool" / "store2") == []
    there, here = ([row.time_s for row in _rows(one, POWER, begun_s)] for one in (steady, influx.url(database)))
    assert len(there) >= 20
    assert here == there


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
