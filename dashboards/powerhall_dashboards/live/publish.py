"""Publishes folder, data source and dashboards to a Grafana, and compares its dashboards with the code."""

import json
from dataclasses import dataclass

from powerhall import __version__
from powerhall.runtime.errors import ConfigError
from powerhall.store.hall_stores import hall_addresses, hall_source
from powerhall.store.influxdb.address import InfluxAddress, parse_influx_url
from powerhall.store.open import scheme_of
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.grafana.dashboard import board_json
from powerhall_dashboards.live.client import Grafana, Json
from powerhall_dashboards.live.normal import normalised

__all__ = ["Difference", "compare", "datasource_spec", "differences", "publish"]

FOLDER_UID = "powerhall"
"""Uid of the folder where no folder of its title is there."""


def publish(
    grafana: Grafana,
    folder: str,
    datasource_uid: str,
    store: str | None,
    *,
    by_class: bool = False,
    by_hall: bool = False,
) -> list[str]:
    """Publish everything; return a line for each part. Publishing again changes nothing."""
    done = []
    addresses = _addresses(store, datasource_uid)
    for address in addresses.values():
        by_class = address.by_class
    by_hall = by_hall or len(addresses) > 1
    folder_uid, made = grafana.put_folder(FOLDER_UID, folder)
    if made:
        done.append(f"folder {folder}: made")
    for uid, address in addresses.items():
        grafana.put_datasource(datasource_spec(address, uid))
        done.append(f"data source {uid}: written")
    if not addresses and grafana.datasource(datasource_uid) is None:
        raise ConfigError(f"{grafana.name}: has no data source {datasource_uid!r}; make it, or give --store")
    for board in BOARDS:
        made_json = board_json(board, by_class=by_class, by_hall=by_hall)
        data = chosen_datasource(json.loads(made_json), datasource_uid)
        if _same(grafana.dashboard(board.uid), data):
            done.append(f"dashboard {board.uid}: up to date")
            continue
        grafana.put_dashboard(data, folder_uid, f"powerhall {__version__}")
        done.append(f"dashboard {board.uid}: written")
    return done


def _addresses(store: str | None, uid: str) -> dict[str, InfluxAddress]:
    """Return the addresses of a URL by the uid of their data source: one, or the site's and that of each hall."""
    if store is None:
        return {}
    if scheme_of(store) != "halls":
        return {uid: parse_influx_url(store)}
    parts = hall_addresses(store)
    urls = {uid: parts.site} | {hall_source(hall): url for hall, url in parts.halls.items()}
    return {name: parse_influx_url(url) for name, url in urls.items()}


def chosen_datasource(data: Json, uid: str) -> Json:
    """Let a dashboard open with this data source."""
    for variable in data["templating"]["list"]:
        if variable["name"] == "datasource":
            variable["current"] = {"selected": True, "text": uid, "value": uid}
    return data


def datasource_spec(address: InfluxAddress, uid: str) -> Json:
    """Return a data source for a store: InfluxQL with Basic auth, which InfluxDB 1.8, 2 and 3 all take."""
    database, policy = address.database
    secret = address.token or address.password
    return {
        "uid": uid,
        "name": uid.capitalize(),
        "type": "influxdb",
        "access": "proxy",
        "url": address.base_url,
        "basicAuth": secret is not None,
        "basicAuthUser": address.user or "powerhall",
        "jsonData": {
            "version": "InfluxQL",
            "dbName": f"{database}/{policy}" if policy else database,
            "httpMode": "POST",
            "timeInterval": "10s",
        },
        "secureJsonData": {"basicAuthPassword": secret.read()} if secret else {},
    }


@dataclass(frozen=True, slots=True)
class Difference:
    """A dashboard that Grafana lacks, or a place in which its copy differs from the code."""

    uid: str
    detail: str
    absent: bool = False


def compare(grafana: Grafana, *, by_class: bool = False, by_hall: bool = False) -> list[Difference]:
    """Return the differences between the dashboards of a Grafana and the code."""
    found = []
    for board in BOARDS:
        stored = grafana.dashboard(board.uid)
        if stored is None:
            found.append(Difference(board.uid, "absent", absent=True))
            continue
        ours = json.loads(board_json(board, by_class=by_class, by_hall=by_hall))
        found += [Difference(board.uid, path) for path in _paths(normalised(ours), normalised(stored))]
    return found


def differences(grafana: Grafana, *, by_class: bool = False, by_hall: bool = False) -> list[str]:
    """Return one line for each difference."""
    return [f"{entry.uid}: {entry.detail}" for entry in compare(grafana, by_class=by_class, by_hall=by_hall)]


def _same(stored: Json | None, ours: Json) -> bool:
    return stored is not None and normalised(stored) == normalised(ours)


def _paths(ours: object, stored: object, path: str = "") -> list[str]:
    """Return where two JSON values differ, at most twenty places."""
    if ours == stored:
        return []
    if isinstance(ours, dict) and isinstance(stored, dict):
        keys = sorted({*ours, *stored})
        found = [line for key in keys for line in _paths(ours.get(key), stored.get(key), f"{path}/{key}")]
    elif isinstance(ours, list) and isinstance(stored, list) and len(ours) == len(stored):
        pairs = zip(ours, stored, strict=True)
        found = [line for number, pair in enumerate(pairs) for line in _paths(*pair, f"{path}/{number}")]
    else:
        found = [f"{path}: {json.dumps(stored)[:60]} instead of {json.dumps(ours)[:60]}"]
    return found[:20]
