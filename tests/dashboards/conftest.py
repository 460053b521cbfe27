"""A small site's telemetry in a SQLite store and in a real InfluxDB, written once for all tests of dashboards."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from powerhall.store import Store, open_store
from powerhall_dashboards.init_store import init_store
from rigs.site_data import SITE, SiteData

DATA = SiteData(end_s=1_790_000_100)
CHOSEN = {"site": (SITE,), "hall": ("h1",), "node": ("n4",), "job": ("job-103",), "plan": ("plan11",)}


@dataclass(frozen=True, slots=True)
class Filled:
    """A store that holds the telemetry, its URL, and when the telemetry ends."""

    url: str
    store: Store
    end_s: int = DATA.end_s

    def chosen(self, uid: str) -> dict[str, tuple[str, ...]]:
        """Values that a user of this dashboard would choose."""
        without = {"powerhall-node": {"hall"}, "powerhall-job": {"hall"}}.get(uid, {"node"})
        without |= set() if uid == "powerhall-hall" else {"hall"}
        return {name: values for name, values in CHOSEN.items() if name not in without}


@pytest.fixture(scope="session")
def filled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    url = f"sqlite:///{tmp_path_factory.mktemp('site') / 'site.db'}"
    store = open_store(url)
    store.write(DATA.lines())
    yield Filled(url, store)
    store.close()


@pytest.fixture(scope="session")
def filled_influx(influx: object) -> Iterator[Filled]:
    yield from filled(influx.url(influx.database("site")))


@pytest.fixture(scope="session")
def filled_classes(influx: object) -> Iterator[Filled]:
    """The same in a database with a retention policy per class, made by init-store."""
    url = influx.url(influx.database("classes"), "version=1&retention=classes")
    init_store(url, None, dry_run=False)
    for policy in ("autogen", "recent", "history"):  # the telemetry is of a fixed day, which may be too old to be kept
        influx.statement(f'ALTER RETENTION POLICY "{policy}" ON "classes" DURATION INF')
    yield from filled(url)


def filled(url: str) -> Iterator[Filled]:
    store = open_store(url)
    lines = DATA.lines().splitlines(keepends=True)
    for at in range(0, len(lines), 5000):
        store.write(b"".join(lines[at : at + 5000]))
    yield Filled(url, store)
    store.close()
