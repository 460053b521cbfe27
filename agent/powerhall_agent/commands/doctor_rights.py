"""What doctor finds of a store's login for a role: rights that it lacks, and rights that the role does not need.

Nothing is changed by asking: a write holds no point, and a bucket is asked to be made under the name of one that is
there, which InfluxDB 2 refuses as a conflict to those who may make one, and as forbidden to all others.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import urlencode

from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.store import Query, Select
from powerhall.store.influxdb.address import parse_influx_url
from powerhall.store.influxdb.answers import AnswerKind
from powerhall.store.influxdb.http import InfluxHttp
from powerhall.store.influxdb.influxql import render_influxql
from powerhall.store.open import scheme_of
from powerhall.store.schema import RETENTION_DAYS

__all__ = ["ROLES", "role_findings"]

ROLES: Final[Mapping[str, frozenset[str]]] = {
    "agent": frozenset({"write points"}),
    "grafana": frozenset({"read points"}),
    "optimizer": frozenset({"read points", "write points"}),
    "carrier": frozenset({"read points", "write points"}),
    "init-store": frozenset({"make buckets"}),
}
"""Role to the rights that it needs, and no more."""
_FOUND = tuple[str, str, str]


def role_findings(role: str, url: str) -> Iterator[_FOUND]:
    """Yield level, text and remedy of the rights of the login in a store's URL."""
    if scheme_of(url) != "influxdb":
        yield "note", f"{url.partition('?')[0]}: has no logins: whoever may open the file may read and write", ""
        return
    try:
        address = parse_influx_url(url)
    except Rejected as error:
        yield "bad", str(error), "correct the store URL"
        return
    if address.version == 3:
        yield "note", f"{address.name}: InfluxDB 3 Core has administrators alone: every login may do everything", ""
    for place in dict.fromkeys(address.of_class(retention) for retention in RETENTION_DAYS):
        http = InfluxHttp(place)
        with contextlib.closing(http):
            yield from _of_place(role, http)


def _of_place(role: str, http: InfluxHttp) -> Iterator[_FOUND]:
    name, needed = http.address.name, ROLES[role]
    for right, may in _RIGHTS.items():
        if right not in needed and "make buckets" in {right, *needed}:
            continue  # who makes the buckets may do much; who does not is not asked whether it could
        try:
            why = may(http)
        except PowerhallError as error:
            yield "bad", str(error), "start the store, open the firewall, or correct the URL"
            return
        if right in needed:
            todo = f"the role {role} needs the right to {right}: docs/guide/store.md has the least rights of each role"
            yield ("ok", f"{name}: may {right}", "") if not why else ("bad", f"{name}: may not {right}: {why}", todo)
        elif not why and http.address.version != 3:
            todo = f"give the role {role} a login that may {' and '.join(sorted(needed))}, and nothing else"
            yield "note", f"{name}: may also {right}, which {role} does not need", todo


def _may_write(http: InfluxHttp) -> str:
    """Return why no points may be written; "" where they may."""
    try:
        http.write(b"\n")
    except ConfigError as error:
        return str(error)
    except Rejected:
        return ""  # the login is accepted; a write without points is refused
    return ""


def _may_read(http: InfluxHttp) -> str:
    end_ms = round(time.time() * 1000)
    try:
        http.query(render_influxql(Query("agent", (Select("lag_s", "last"),)), end_ms - 60_000, end_ms))
    except Rejected as error:
        return str(error)
    return ""


def _may_make(http: InfluxHttp) -> str:
    """Return why neither the organization is seen nor a bucket may be made; "" where both are."""
    address = http.address
    ask = {1: _administers, 2: _makes_buckets, 3: _lists_databases}[address.version]
    try:
        return ask(http)
    except Rejected as error:
        return str(error)


def _administers(http: InfluxHttp) -> str:
    """Version 1: users are listed to administrators alone."""
    http.statement("SHOW USERS")
    return ""


def _lists_databases(http: InfluxHttp) -> str:
    http.api("GET", "/api/v3/configure/database?format=json")
    return ""


def _makes_buckets(http: InfluxHttp) -> str:
    address = http.address
    orgs = _objects(http, f"/api/v2/orgs?{urlencode({'org': address.org})}", "orgs")
    if not orgs:
        return f"org {address.org!r} is not to be seen: the token needs read:orgs"
    org = str(orgs[0].get("id", ""))
    buckets = _objects(http, f"/api/v2/buckets?{urlencode({'orgID': org, 'limit': 1})}", "buckets")
    if not buckets:
        return "no bucket is to be seen: the token needs read:buckets of the whole org"
    body = {"name": str(buckets[0].get("name", "")), "orgID": org, "retentionRules": []}
    try:
        http.api("POST", "/api/v2/buckets", body)
    except ConfigError:
        return "the token needs write:buckets of the whole org"
    except Rejected:
        return ""  # there is one of this name: who may not make one is not told so
    return ""


def _objects(http: InfluxHttp, path: str, name: str) -> list[dict[str, object]]:
    """Return the objects that a list of version 2 shows to this token."""
    answer = decode_plain_json(http.api("GET", path, none_on=AnswerKind.NO_BUCKET) or b"{}", http.address.name)
    found = answer.get(name) if isinstance(answer, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


_RIGHTS: Final[Mapping[str, Callable[[InfluxHttp], str]]] = {
    "write points": _may_write,
    "read points": _may_read,
    "make buckets": _may_make,
}
