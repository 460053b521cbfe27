"""The embedded store: SQLite in WAL mode, safe with several writing and reading processes on one machine.

Invariants:
* every measurement has a table `NAME` (series, time_ms, one column per field; primary key series + time_ms, WITHOUT
  ROWID) and a table `NAME_series` (id, one column per tag; all tags unique together), both made from the schema;
* a point is its series and time: a resend overwrites itself, and fields of two writes of one point are joined;
* one call of `write` is one transaction: all of its lines arrive or none does.
"""

# ruff: noqa: S608 - names come from the schema, checked when a Query is built; values are bound or quoted

import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from powerhall.runtime.decode.bytes_in import inflate
from powerhall.runtime.decode.limits import MOST_JSON_BYTES
from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.store.base import StoreKind
from powerhall.store.points import Batch, batches
from powerhall.store.query import Query, Row
from powerhall.store.schema import MEASUREMENTS, SCHEMA_VERSION, Measurement
from powerhall.store.sql import render_sql

__all__ = ["KIND", "SqliteStore"]

_BUSY_TIMEOUT_S = 10.0
_WAL_LIMIT_BYTES = 32 * 1024 * 1024
_CHECKPOINT_PAGES = 2000
_DAY_MS = 86_400_000


class SqliteStore:
    """A store in one SQLite file; made when absent. One instance may be used from several threads."""

    def __init__(self, path: str | Path, *, busy_timeout_s: float = _BUSY_TIMEOUT_S) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._series: dict[tuple[str, tuple[str, ...]], int] = {}
        if not self.path.parent.is_dir():
            raise ConfigError(f"sqlite:///{self.path}: folder {self.path.parent} does not exist")
        with self._errors():
            self._db = sqlite3.connect(
                self.path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._db.create_aggregate("value_at_first", 2, _First)  # type: ignore[arg-type]
            self._db.create_aggregate("value_at_last", 2, _Last)  # type: ignore[arg-type]
            try:
                self._open()
            except (sqlite3.Error, PowerhallError):
                self._db.close()
                raise

    def write(self, lines: bytes) -> None:
        """Write line protocol in one transaction; a line that the schema does not have refuses all of them."""
        parts = list(batches(lines, f"sqlite:///{self.path}"))
        if not parts:
            return
        with self._lock, self._errors():
            try:
                with self._transaction():
                    for part in parts:
                        self._insert(part)
            except BaseException:
                self._series.clear()  # ids given inside the undone transaction do not exist
                raise

    def query(self, query: Query, start_s: float, end_s: float) -> list[Row]:
        """Answer a query over start_s <= time < end_s, ordered by group and time."""
        statement = render_sql(query, round(start_s * 1000), round(end_s * 1000))
        with self._lock, self._errors():
            found = self._db.execute(statement.text, statement.parameters).fetchall()
        tags, names = query.group_by, tuple(entry.name for entry in query.select)
        first = 1 + len(tags)
        return [
            Row(
                line[0] / 1000, dict(zip(tags, line[1:first], strict=True)), dict(zip(names, line[first:], strict=True))
            )
            for line in found
        ]

    def put_document(self, kind: str, key: str, time_s: float, body: bytes) -> None:
        """Keep a document under its kind and key as of `time_s`; the same again overwrites itself."""
        values = (kind, key, round(time_s * 1000), zlib.compress(body))
        with self._lock, self._errors(), self._transaction():
            self._db.execute(
                "INSERT INTO document VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body", values
            )

    def latest_document(self, kind: str, key: str | None = None) -> bytes | None:
        """Return the newest document of this kind and key, or of any key; None where there is none."""
        condition, values = ("", [kind]) if key is None else (" AND key = ?", [kind, key])
        with self._lock, self._errors():
            found = self._db.execute(
                f"SELECT body FROM document WHERE kind = ?{condition} ORDER BY time_ms DESC LIMIT 1",
                values,
            ).fetchone()
        source = f"sqlite:///{self.path}: document {kind}"
        if found is None:
            return None
        if not isinstance(found[0], bytes):
            raise Rejected(f"{source}: damaged: not compressed data")
        return inflate(found[0], source, MOST_JSON_BYTES)

    def prune(self, now_s: float) -> int:
        """Delete points past their measurement's retention; return how many."""
        gone = 0
        for entry in MEASUREMENTS.values():
            oldest_ms = round(now_s * 1000) - entry.retention_days * _DAY_MS
            text = f'DELETE FROM "{entry.name}" WHERE series = ? AND time_ms < ?'
            with self._lock, self._errors(), self._transaction():
                ids = self._db.execute(f'SELECT id FROM "{entry.name}_series"').fetchall()
                gone += self._db.executemany(text, [(number, oldest_ms) for (number,) in ids]).rowcount if ids else 0
        return gone

    def close(self) -> None:
        """Close the file; the last process to close it folds the write-ahead log into it."""
        with self._lock:
            self._db.close()

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self._db.execute("PRAGMA cache_size = -16384")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise ConfigError(f"sqlite:///{self.path}: has schema version {version}, newer than {SCHEMA_VERSION}")
        if self._complete():
            return
        with self._transaction():
            for entry in MEASUREMENTS.values():
                self._make(entry)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS document (kind TEXT NOT NULL, key TEXT NOT NULL, time_ms INTEGER NOT NULL, "
                "body BLOB NOT NULL, UNIQUE (kind, key, time_ms))"
            )
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _complete(self) -> bool:
        tables = "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'"
        have = set(self._db.execute(tables))
        wanted = {(entry.name, field.name) for entry in MEASUREMENTS.values() for field in entry.fields}
        return wanted <= have and ("document", "body") in have

    def _make(self, entry: Measurement) -> None:
        tags = ", ".join(f'"{tag}" TEXT NOT NULL' for tag in entry.tags)
        unique = ", ".join(f'"{tag}"' for tag in entry.tags)
        self._db.execute(
            f'CREATE TABLE IF NOT EXISTS "{entry.name}_series" (id INTEGER PRIMARY KEY, {tags}, UNIQUE ({unique}))'
        )
        fields = ", ".join(f'"{f.name}" {"TEXT" if f.is_text else "REAL"}' for f in entry.fields)
        self._db.execute(
            f'CREATE TABLE IF NOT EXISTS "{entry.name}" (series INTEGER NOT NULL, time_ms INTEGER NOT NULL, {fields}, '
            "PRIMARY KEY (series, time_ms)) WITHOUT ROWID"
        )
        have = {row[0] for row in self._db.execute("SELECT name FROM pragma_table_info(?)", (entry.name,))}
        for field in entry.fields:
            if field.name not in have:
                kind = "TEXT" if field.is_text else "REAL"
                self._db.execute(f'ALTER TABLE "{entry.name}" ADD COLUMN "{field.name}" {kind}')

    def _insert(self, part: Batch) -> None:
        ids = {tags: self._series_id(part.measurement, tags) for tags in {point[0] for point in part.points}}
        names = [f'"{name}"' for name in part.fields]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names)
        text = (
            f'INSERT INTO "{part.measurement}" (series, time_ms, {", ".join(names)}) '
            f"VALUES ({', '.join('?' * (2 + len(names)))}) ON CONFLICT DO UPDATE SET {updates}"
        )
        self._db.executemany(text, ((ids[tags], time_ms, *values) for tags, time_ms, values in part.points))

    def _series_id(self, measurement: str, tags: tuple[str, ...]) -> int:
        known = self._series.get((measurement, tags))
        if known is not None:
            return known
        names = [f'"{tag}"' for tag in MEASUREMENTS[measurement].tags]
        marks = ", ".join("?" * len(names))
        self._db.execute(f'INSERT OR IGNORE INTO "{measurement}_series" ({", ".join(names)}) VALUES ({marks})', tags)
        where = " AND ".join(f"{name} = ?" for name in names)
        (found,) = self._db.execute(f'SELECT id FROM "{measurement}_series" WHERE {where}', tags).fetchone()
        self._series[measurement, tags] = int(found)
        return int(found)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._roll_back()  # of a call that an interrupt ended before its own ROLLBACK
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise _classify(error)(f"sqlite:///{self.path}: {error}") from None
        except sqlite3.Error as error:
            raise ConfigError(f"sqlite:///{self.path}: {error}") from None


def _classify(error: sqlite3.OperationalError) -> type[PowerhallError]:
    """Return Retryable for a busy, locked, full or failing file, else ConfigError (it cannot be opened or written)."""
    name = getattr(error, "sqlite_errorname", "")
    return (
        Retryable if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")) else ConfigError
    )


class _Edge:
    """An aggregate that keeps the value at the earliest or latest time."""

    newer: Callable[[int, int], bool]

    def __init__(self) -> None:
        self.value: float | str | None = None
        self.time_ms: int | None = None

    def step(self, value: float | str | None, time_ms: int) -> None:
        if value is not None and (self.time_ms is None or self.newer(time_ms, self.time_ms)):
            self.value, self.time_ms = value, time_ms

    def finalize(self) -> float | str | None:
        return self.value


class _First(_Edge):
    newer = staticmethod(lambda time_ms, kept_ms: time_ms < kept_ms)


class _Last(_Edge):
    newer = staticmethod(lambda time_ms, kept_ms: time_ms >= kept_ms)


def _file(url: str) -> Path:
    path = unquote(url.removeprefix("sqlite:///"))
    if not path:
        raise ConfigError(f"store URL: {url}: names no file; must be sqlite:///PATH")
    return Path(path)


def _open(url: str) -> SqliteStore:
    return SqliteStore(_file(url))


KIND = StoreKind("sqlite:///", "sqlite:///PATH", (), _open, _file)
