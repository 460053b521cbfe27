"""The SQLite store: several processes, kills, full write-ahead logs, broken files, older schemas."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.store import Query, Select, open_store
from powerhall.store.schema import MEASUREMENTS
from powerhall.store.sqlite import SqliteStore

COUNT = Query("gpu", (Select("power_w", "count", "n"),))
WRITER = """
    import sys
    from powerhall.store import open_store
    path, name, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = open_store(f"sqlite:///{path}")
    for batch in range(batches):
        time_ms = 1_700_000_000_000 + batch * 1000
        store.write(b"".join(b"gpu,site=s,node=%s,gpu=%d power_w=%d.0 %d\\n" % (name.encode(), gpu, batch, time_ms)
                             for gpu in range(50)))
        print(batch, flush=True)
    store.close()
"""

INTERRUPTED = """
    import random, signal, sys
    from powerhall.store import open_store

    class Interrupt(BaseException):
        pass

    def interrupt(_signal, _frame):
        raise Interrupt

    store, delays = open_store(f"sqlite:///{sys.argv[1]}"), random.Random(1)
    signal.signal(signal.SIGALRM, interrupt)
    for at in range(300):
        line = b"gpu,site=s,node=%s power_w=1.0 %d\\n"
        try:
            signal.setitimer(signal.ITIMER_REAL, delays.uniform(1e-5, 1e-3), 1e-2)
            while True:
                store.write(line % (b"a", 1_700_000_000_000 + at))
        except Interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        store.write(line % (b"b", 1_700_000_000_000 + at))
    store.close()
"""


def spawn(path: Path, name: str, batches: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), name, str(batches)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def count(store: SqliteStore) -> float:
    rows = store.query(COUNT, 1.6e9, 1.8e9)
    return rows[0].number("n") if rows else 0.0


def test_writing_processes_and_readers_do_not_lose_or_block_each_other(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    writers = [spawn(path, f"n{number}", 40) for number in range(3)]
    store = SqliteStore(path)
    seen = [0.0]
    while any(writer.poll() is None for writer in writers):
        seen.append(count(store))
        time.sleep(0.01)
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen == sorted(seen)
    assert all(points % 50 == 0 for points in seen), "a batch is seen whole or not at all"
    assert count(store) == 3 * 40 * 50
    store.close()


def test_a_killed_writer_leaves_whole_batches_and_every_acknowledged_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged = 0
    for round_ in range(3):
        writer = spawn(path, f"n{round_}", 100_000)
        for _ in range(20):
            writer.stdout.readline()
            acknowledged += 1
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += len(writer.stdout.read().split())
        writer.wait()
        writer.stdout.close()
    store = SqliteStore(path)
    points = count(store)
    assert points % 50 == 0
    assert acknowledged * 50 <= points <= (acknowledged + 3) * 50
    store.close()
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


def test_a_refused_line_undoes_its_whole_batch_and_the_next_batch_still_fits(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(Rejected, match=r"line 2: gpu\.power_w: 'high': must be a number"):
        store.write(b'gpu,site=s,node=a power_w=1.0 1700000000000\ngpu,site=s,node=a power_w="high" 1700000000000\n')
    assert count(store) == 0
    store.write(b"gpu,site=s,node=a power_w=1.0 1700000000000\n")
    assert count(store) == 1
    store.close()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"gpus,site=s power_w=1.0 1700000000000", "measurement: 'gpus'"),
        (b"gpu,site=s,job=7 power_w=1.0 1700000000000", "gpu tag: 'job': must be one of site,"),
        (b"gpu,site=s watts=1.0 1700000000000", "gpu field: 'watts'"),
        (b"gpu,site=s power_w=nan 1700000000000", "power_w=nan"),
        (b"gpu,site=s power_w=1.0", "must be 'measurement,tag=value field=value time_ms'"),
        (b"gpu,site power_w=1.0 1700000000000", "tag 'site': must be key=value"),
        (b"gpu,site=s power_w=1.0 now", "must be 'measurement"),
        (b"gpu,site=s power_w=\xff 1700000000000", "not UTF-8"),
        (b"event,site=s,kind=xid detail=5.0 1700000000000", "event.detail: 5.0: must be text"),
    ],
)
def test_names_outside_the_schema_are_rejected_by_name(line: bytes, named: str, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(Rejected) as refusal:
        store.write(line + b"\n")
    assert named in str(refusal.value)
    store.close()


def test_threads_may_share_one_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")

    def write(name: int) -> None:
        for at in range(20):
            store.write(b"gpu,site=s,node=%d power_w=1.0 %d\n" % (name, 1_700_000_000_000 + at))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(store) == 80
    store.close()


def test_a_lock_that_is_held_too_long_is_retryable_and_the_retry_succeeds(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", busy_timeout_s=0.1)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    line = b"gpu,site=s,node=a power_w=1.0 1700000000000\n"
    with pytest.raises(Retryable, match="locked"):
        store.write(line)
    other.execute("ROLLBACK")
    other.close()
    store.write(line)
    assert count(store) == 1
    store.close()


def test_an_interrupt_at_any_moment_leaves_a_store_that_writes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path / "store.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    store = SqliteStore(tmp_path / "store.db")
    assert count(store) >= 300
    store.close()


def test_the_write_ahead_log_stays_small_under_steady_writing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    for batch in range(60):
        store.write(
            b"".join(
                b"gpu,site=s,node=%d power_w=%d.0,temp_c=2.0,energy_j=%d.5 %d\n"
                % (node, batch, batch, 1_700_000_000_000 + batch)
                for node in range(1000)
            )
        )
    wal = tmp_path / "store.db-wal"
    assert (tmp_path / "store.db").stat().st_size > 1_000_000
    assert wal.stat().st_size < 40 * 1024 * 1024
    store.close()
    assert not wal.exists()


def test_a_file_that_is_not_a_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a database, and they are long enough to be read as one " * 20)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"notes\.txt: file is not a database"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "store.db").close()
    raw = sqlite3.connect(tmp_path / "store.db")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(ConfigError, match="schema version 99, newer than 1"):
        SqliteStore(tmp_path / "store.db")


def test_fields_that_an_older_file_lacks_are_added_and_its_points_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    store.write(b"weather,site=s dry_bulb_c=30.0 1700000000000\n")
    store.close()
    raw = sqlite3.connect(path)
    raw.execute("ALTER TABLE weather DROP COLUMN wet_bulb_c")
    raw.close()
    store = SqliteStore(path)
    store.write(b"weather,site=s wet_bulb_c=20.0 1700000000000\n")
    (row,) = store.query(Query("weather", (Select("dry_bulb_c"), Select("wet_bulb_c"))), 1.6e9, 1.8e9)
    assert row.values == {"dry_bulb_c": 30.0, "wet_bulb_c": 20.0}
    store.close()


def test_pruning_deletes_only_points_past_their_retention(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    now_s = 1_700_000_000
    week_s = MEASUREMENTS["gpu"].retention_days * 86400
    for age_s in (week_s + 1, week_s - 1, 0):
        store.write(b"gpu,site=s,node=a power_w=1.0 %d\n" % ((now_s - age_s) * 1000))
        store.write(b"weather,site=s wet_bulb_c=1.0 %d\n" % ((now_s - age_s) * 1000))
    assert store.prune(now_s) == 1
    assert count(store) == 2
    assert store.query(Query("weather", (Select("wet_bulb_c", "count", "n"),)), 1.6e9, 1.8e9)[0].values == {"n": 3.0}
    assert store.prune(now_s) == 0
    store.close()


def test_escaped_and_plain_lines_of_one_series_are_the_same_points(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store.write(b'event,site=s,kind=xid code=79.0 1700000000000\nevent,site=s,kind=xid detail="a b" 1700000000000\n')
    (row,) = store.query(Query("event", (Select("code"), Select("detail"))), 1.6e9, 1.8e9)
    assert row.values == {"code": 79.0, "detail": "a b"}
    store.close()
