"""Prepares a store before the first point: database or bucket, its retention, and its name for InfluxQL.

`_PREPARE` has the kinds of stores that need more than to be opened. There is one function per version of InfluxDB; each
changes nothing where everything exists. Points of one bucket share one retention; with `retention=classes` in the URL
each class of the schema has its own bucket.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.store import open_store
from powerhall.store.influxdb.address import InfluxAddress, parse_influx_url
from powerhall.store.influxdb.http import InfluxHttp
from powerhall.store.influxdb.influxql import identifier
from powerhall.store.open import scheme_of, store_kind
from powerhall.store.schema import RETENTION_DAYS, Retention

__all__ = ["DEFAULT_DAYS", "init_store"]

DEFAULT_DAYS = 90
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class _Setup:
    """One store to prepare; `step` runs a change, or only names it in a dry run."""

    address: InfluxAddress
    http: InfluxHttp
    retention_days: int
    dry_run: bool
    done: list[str]
    is_default: bool = True
    """Whether InfluxQL without a retention policy means this place."""

    def api(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Call an administration endpoint whose answer is an object, or nothing."""
        answer: dict[str, Any] = json.loads(self.http.api(method, path, body) or b"{}")
        return answer

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
        try:
            prepare(_Setup(http.address, http, kept_days, dry_run, done, is_default=retention == "fine"))
        finally:
            http.close()
    return done or [f"{address.name}: everything is there"]


_PREPARE: Mapping[str, Callable[[str, int | None, bool], list[str]]] = {"influxdb": _influxdb}
"""Scheme of the URL to the function that prepares such a store; others make their tables when they are opened."""


def _version_1(setup: _Setup) -> None:
    """Database and retention policy by InfluxQL; a bucket without a policy uses autogen."""
    database, policy = setup.address.database
    policy = policy or "autogen"
    statement = setup.http.statement
    series = json.loads(statement("SHOW DATABASES"))["results"][0].get("series", [{}])[0]
    if [database] not in series.get("values", []):
        if setup.dry_run and not setup.is_default:
            setup.step(f"retention policy {policy}: {setup.retention_days} days", lambda: None)
            return
        setup.step(f"database {database}: made", lambda: statement(f"CREATE DATABASE {identifier(database)}"))
        if setup.dry_run:
            return
    answer = json.loads(statement(f"SHOW RETENTION POLICIES ON {identifier(database)}"))["results"][0]
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
    found = api("GET", f"/api/v2/orgs?{urlencode({'org': address.org})}").get("orgs", [])
    if not address.org or not found:
        raise ConfigError(f"{address.name}: org: {address.org!r}: must name an organization that the token can see")
    org = found[0]["id"]
    rules = [{"type": "expire", "everySeconds": setup.retention_days * _DAY_S}]
    query = urlencode({"name": address.bucket, "orgID": org})
    buckets = api("GET", f"/api/v2/buckets?{query}").get("buckets", [])
    bucket = buckets[0]["id"] if buckets else ""
    if not buckets:
        body = {"name": address.bucket, "orgID": org, "retentionRules": rules}
        made: list[str] = []
        setup.step(
            f"bucket {address.bucket}: made, {setup.retention_days} days",
            lambda: made.append(api("POST", "/api/v2/buckets", body)["id"]),
        )
        bucket = made[0] if made else ""
    elif [rule.get("everySeconds") for rule in buckets[0].get("retentionRules", [])] != [rules[0]["everySeconds"]]:
        setup.step(
            f"bucket {address.bucket}: {setup.retention_days} days",
            lambda: api("PATCH", f"/api/v2/buckets/{bucket}", {"retentionRules": rules}),
        )
    database, policy = address.database
    mappings = api("GET", f"/api/v2/dbrps?{urlencode({'orgID': org, 'db': database})}").get("content", [])
    if not any(entry.get("retention_policy") == (policy or "autogen") for entry in mappings):
        mapping = {
            "bucketID": bucket,
            "database": database,
            "retention_policy": policy or "autogen",
            "default": setup.is_default,
            "orgID": org,
        }
        setup.step(f"mapping of database {address.bucket}: made", lambda: api("POST", "/api/v2/dbrps", mapping))


def _version_3(setup: _Setup) -> None:
    """Database with its retention; version 3 also makes one by itself at the first write, but without retention."""
    name = setup.address.bucket
    listed = json.loads(setup.http.api("GET", "/api/v3/configure/database?format=json") or b"[]")
    names = [entry.get("iox::database") for entry in listed]
    if name in names:
        return
    body = {"db": name, "retention_period": f"{setup.retention_days}d"}
    text = f"database {name}: made, {setup.retention_days} days"
    setup.step(text, lambda: setup.http.api("POST", "/api/v3/configure/database", body))
