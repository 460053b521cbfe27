"""Prepares a store before the first point: database or bucket, its retention, and its name for InfluxQL.

`_PREPARE` has the kinds of stores that need more than to be opened. There is one function per version of InfluxDB; each
changes nothing where everything exists. Points of one bucket share one retention; with `retention=classes` in the URL
each class of the schema has its own bucket.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.store import open_store
from powerhall.store.documents import DOCUMENT
from powerhall.store.hall_stores import hall_addresses
from powerhall.store.influxdb.address import InfluxAddress, parse_influx_url
from powerhall.store.influxdb.answers import AnswerKind
from powerhall.store.influxdb.http import InfluxHttp
from powerhall.store.influxdb.influxql import identifier
from powerhall.store.open import scheme_of, store_kind
from powerhall.store.schema import MEASUREMENTS, RETENTION_DAYS, Measurement, Retention

__all__ = ["DEFAULT_DAYS", "init_store"]

DEFAULT_DAYS = 90
_ALL = (*MEASUREMENTS.values(), DOCUMENT)
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class _Setup:
    """One store to prepare; `step` runs a change, or only names it in a dry run."""

    address: InfluxAddress
    http: InfluxHttp
    retention_days: int
    dry_run: bool
    done: list[str]
    measurements: tuple[Measurement, ...]
    """Those that are kept there."""
    is_default: bool = True
    """Whether InfluxQL without a retention policy means this place."""

    def api(
        self, method: str, path: str, body: object = None, none_on: AnswerKind | None = None
    ) -> dict[str, Any] | None:
        """Call an administration endpoint whose answer is an object, or nothing; None is a refusal of that kind."""
        data = self.http.api(method, path, body, none_on=none_on)
        answer: dict[str, Any] | None = None if data is None else self.answer(data or b"{}")
        return answer

    def answer(self, body: bytes) -> Any:  # noqa: ANN401 - of one of three servers
        """Return the plain data of an answer."""
        return decode_plain_json(body, self.address.name)

    def step(self, text: str, change: Callable[[], object]) -> None:
        """Make one change and note it."""
        if not self.dry_run:
            change()
        self.done.append(text)


def init_store(url: str, retention_days: int | None, *, dry_run: bool) -> list[str]:
    """Prepare the store of this URL; return a line for each thing done, or to be done in a dry run."""
    if retention_days is not None and retention_days < 1:
        raise Rejected.field("init-store", "--retention-days", retention_days, "must be at least 1")
    store_kind(url)  # refuses a URL of no kind of store
    prepare = _PREPARE.get(scheme_of(url), _by_opening)
    return prepare(url, retention_days, dry_run)


def _by_opening(url: str, _: int | None, dry_run: bool) -> list[str]:
    """A store that makes its tables when it is opened, and keeps every point."""
    if not dry_run:
        open_store(url).close()
    return [f"{url}: tables of the schema"]


def _influxdb(url: str, retention_days: int | None, dry_run: bool) -> list[str]:
    """Databases or buckets, one for each class of retention where the URL says so."""
    address = parse_influx_url(url)
    if address.by_class and retention_days is not None:
        raise Rejected.field(
            "init-store", "--retention-days", retention_days, "is for one bucket; classes keep what the schema says"
        )
    one: dict[Retention, int] = {"fine": retention_days or DEFAULT_DAYS}
    days = RETENTION_DAYS if address.by_class else one
    prepare = {1: _version_1, 2: _version_2, 3: _version_3}[address.version]
    done: list[str] = []
    for retention, kept_days in days.items():
        http = InfluxHttp(address.of_class(retention))
        kept = tuple(entry for entry in _ALL if not address.by_class or entry.retention == retention)
        try:
            prepare(_Setup(http.address, http, kept_days, dry_run, done, kept, is_default=retention == "fine"))
        except (LookupError, TypeError, AttributeError):
            raise Rejected(f"{http.address.name}: the answer is not that of InfluxDB {address.version}") from None
        finally:
            http.close()
    return done or [f"{address.name}: everything is there"]


def _halls(url: str, retention_days: int | None, dry_run: bool) -> list[str]:
    """The site's store and each hall's."""
    addresses = hall_addresses(url)
    named = {"site": addresses.site, **addresses.halls}
    return [
        f"{name}: {line}" for name, one in named.items() for line in init_store(one, retention_days, dry_run=dry_run)
    ]


_PREPARE: Mapping[str, Callable[[str, int | None, bool], list[str]]] = {"influxdb": _influxdb, "halls": _halls}
"""Scheme of the URL to the function that prepares such a store; others make their tables when they are opened."""


def _version_1(setup: _Setup) -> None:
    """Database and retention policy by InfluxQL; a bucket without a policy uses autogen."""
    database, policy = setup.address.database
    policy = policy or "autogen"
    statement = setup.http.statement
    series = setup.answer(statement("SHOW DATABASES"))["results"][0].get("series", [{}])[0]
    if [database] not in series.get("values", []):
        if setup.dry_run and not setup.is_default:
            setup.step(f"retention policy {policy}: {setup.retention_days} days", lambda: None)
            return
        setup.step(f"database {database}: made", lambda: statement(f"CREATE DATABASE {identifier(database)}"))
        if setup.dry_run:
            return
    answer = setup.answer(statement(f"SHOW RETENTION POLICIES ON {identifier(database)}"))["results"][0]
    policies = {row[0]: row[1] for row in answer.get("series", [{}])[0].get("values", [])}
    wanted = f"{setup.retention_days * 24}h0m0s"
    if policies.get(policy) == wanted:
        return
    verb = "ALTER" if policy in policies else "CREATE"
    text = f"{verb} RETENTION POLICY {identifier(policy)} ON {identifier(database)} DURATION {setup.retention_days}d"
    text += "" if verb == "ALTER" else " REPLICATION 1"
    text += " DEFAULT" if setup.is_default else ""
    setup.step(f"retention policy {policy}: {setup.retention_days} days", lambda: statement(text))


def _version_2(setup: _Setup) -> None:
    """Bucket with its retention, and the mapping by which InfluxQL finds it (made by itself from 2.4 on)."""
    address, api = setup.address, setup.api
    found = (api("GET", f"/api/v2/orgs?{urlencode({'org': address.org})}") or {}).get("orgs", [])
    if not address.org or not found:
        raise ConfigError(f"{address.name}: org: {address.org!r}: must name an organization that the token can see")
    org = found[0]["id"]
    rules = [{"type": "expire", "everySeconds": setup.retention_days * _DAY_S}]
    query = urlencode({"name": address.bucket, "orgID": org})
    # versions 2.0 to 2.9 answer 404, and not an empty list, where there is none of this name
    buckets = (api("GET", f"/api/v2/buckets?{query}", none_on=AnswerKind.NO_BUCKET) or {}).get("buckets", [])
    bucket = buckets[0]["id"] if buckets else ""
    if not buckets:
        body = {"name": address.bucket, "orgID": org, "retentionRules": rules}
        made: list[str] = []
        setup.step(
            f"bucket {address.bucket}: made, {setup.retention_days} days",
            lambda: made.append((api("POST", "/api/v2/buckets", body) or {})["id"]),
        )
        bucket = made[0] if made else ""
    elif [rule.get("everySeconds") for rule in buckets[0].get("retentionRules", [])] != [rules[0]["everySeconds"]]:
        setup.step(
            f"bucket {address.bucket}: {setup.retention_days} days",
            lambda: api("PATCH", f"/api/v2/buckets/{bucket}", {"retentionRules": rules}),
        )
    _map(setup, org, bucket)


def _map(setup: _Setup, org: str, bucket: str) -> None:
    """Map InfluxQL's name to the bucket; a token without that right needs no mapping from 2.4 on."""
    database, policy = setup.address.database
    kind = AnswerKind.NOT_ALLOWED if _maps_by_name(setup) else None
    found = setup.api("GET", f"/api/v2/dbrps?{urlencode({'orgID': org, 'db': database})}", none_on=kind)
    entries = [] if found is None else found.get("content", [])
    if found is None or any(entry.get("retention_policy") == (policy or "autogen") for entry in entries):
        return
    mapping = {
        "bucketID": bucket,
        "database": database,
        "retention_policy": policy or "autogen",
        "default": setup.is_default,
        "orgID": org,
    }
    if setup.dry_run or setup.api("POST", "/api/v2/dbrps", mapping, none_on=kind) is not None:
        setup.done.append(f"mapping of database {setup.address.bucket}: made")


def _maps_by_name(setup: _Setup) -> bool:
    """Return whether InfluxQL finds buckets by their names: from 2.4 on, by the version that the server tells."""
    try:
        version = str((setup.api("GET", "/health") or {}).get("version", ""))
    except (PowerhallError, AttributeError):
        return False
    found = re.match(r"v?2\.(\d+)", version)
    return found is not None and int(found[1]) >= 4


def _version_3(setup: _Setup) -> None:
    """Database with its retention, which version 3 would make without one at the first write, and its tables."""
    name = setup.address.bucket
    listed = setup.answer(setup.http.api("GET", "/api/v3/configure/database?format=json") or b"[]")
    tables: set[str] = set()
    if name in [entry.get("iox::database") for entry in listed]:
        query = urlencode({"db": name, "format": "json", "q": "SELECT table_name FROM information_schema.tables"})
        found = setup.answer(setup.http.api("GET", f"/api/v3/query_sql?{query}") or b"[]")
        tables = {entry.get("table_name") for entry in found}
    else:
        body = {"db": name, "retention_period": f"{setup.retention_days}d"}
        text = f"database {name}: made, {setup.retention_days} days"
        setup.step(text, lambda: setup.http.api("POST", "/api/v3/configure/database", body))
    missing = [entry for entry in setup.measurements if entry.name not in tables]
    if missing:
        text = f"database {name}: {len(missing)} tables made, with all of their tags"
        setup.step(text, lambda: _make_tables(setup, missing))


def _make_tables(setup: _Setup, missing: Sequence[Measurement]) -> None:
    """Make tables with all of their tags: on version 3 a condition on a tag that was never written finds nothing."""
    for entry in missing:
        fields = [{"name": field.name, "type": "utf8" if field.is_text else "float64"} for field in entry.fields]
        body = {"db": setup.address.bucket, "table": entry.name, "tags": list(entry.tags), "fields": fields}
        setup.http.api("POST", "/api/v3/configure/table", body)
