"""Preparing stores: a real InfluxDB 1.6; the documented endpoints of 2 and 3 (no server of those is seen here)."""

import io
import json
import sys
import threading
import time
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.store import Query, Select, open_store
from powerhall.store import open as store_open
from powerhall.store.base import StoreKind
from powerhall.store.influxdb.address import parse_influx_url
from powerhall.store.open import STORE_KINDS
from powerhall.store.schema import MEASUREMENTS
from powerhall_dashboards.cli import main
from powerhall_dashboards.init_store import init_store


@pytest.mark.rig
def test_version_1_gets_database_and_retention_and_a_second_run_changes_nothing(influx: object) -> None:
    influx.statement('DROP DATABASE "fresh"')
    url = f"influxdb://127.0.0.1:{influx.port}/fresh?version=1"
    assert init_store(url, 30, dry_run=True) == ["database fresh: made"]
    assert "fresh" not in influx.statement("SHOW DATABASES")
    assert init_store(url, 30, dry_run=False) == ["database fresh: made", "retention policy autogen: 30 days"]
    assert '["autogen","720h0m0s"' in influx.statement('SHOW RETENTION POLICIES ON "fresh"')
    assert "everything is there" in init_store(url, 30, dry_run=False)[0]
    assert init_store(url, 60, dry_run=False) == ["retention policy autogen: 60 days"]


@pytest.mark.rig
def test_version_1_gets_a_policy_of_its_own_where_the_bucket_names_one(influx: object) -> None:
    influx.statement('DROP DATABASE "fresh"')
    init_store(f"influxdb://127.0.0.1:{influx.port}/fresh/quarter?version=1", 90, dry_run=False)
    policies = influx.statement('SHOW RETENTION POLICIES ON "fresh"')
    assert '["quarter","2160h0m0s"' in policies


@pytest.mark.rig
def test_version_1_gets_a_policy_per_class_and_stays_on_the_short_one_by_default(influx: object) -> None:
    influx.statement('DROP DATABASE "fresh"')
    url = f"influxdb://127.0.0.1:{influx.port}/fresh?version=1&retention=classes"
    planned = init_store(url, None, dry_run=True)
    assert planned == [
        "database fresh: made",
        "retention policy recent: 90 days",
        "retention policy history: 3650 days",
    ]
    assert "fresh" not in influx.statement("SHOW DATABASES")
    assert init_store(url, None, dry_run=False) == [planned[0], "retention policy autogen: 7 days", *planned[1:]]
    (series,) = json.loads(influx.statement('SHOW RETENTION POLICIES ON "fresh"'))["results"][0]["series"]
    kept = {row[0]: (row[1], row[-1]) for row in series["values"]}
    assert kept == {
        "autogen": ("168h0m0s", True),
        "recent": ("2160h0m0s", False),
        "history": ("87600h0m0s", False),
    }
    assert "everything is there" in init_store(url, None, dry_run=False)[0]


@pytest.mark.rig
def test_each_class_refuses_points_past_its_retention(influx: object) -> None:
    influx.statement('DROP DATABASE "fresh"')
    url = influx.url("fresh", "version=1&retention=classes")
    init_store(url, None, dry_run=False)
    store = open_store(url)
    month_ms = round((time.time() - 30 * 86_400) * 1000)
    with pytest.raises(Rejected, match="points beyond retention policy"):
        store.write(b"gpu,site=s,node=n,gpu=0 power_w=1.0 %d\n" % month_ms)
    store.write(b"agent,site=s,node=n lag_s=1.0 %d\n" % month_ms)
    store.write(b"plan,site=s value=1.0 %d\n" % (month_ms - 300 * 86_400_000))
    assert store.query(Query("agent", (Select("lag_s"),)), 0.0, time.time())
    assert store.query(Query("plan", (Select("value"),)), 0.0, time.time())
    store.close()


class Server:
    """Keeps requests, and gives the answers that a test sets for method and path."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.seen: list[tuple[str, object]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                call = f"{self.command} {self.path.partition('?')[0]}"
                outer.seen.append((call, body))
                status, data = outer.answers.get(call, (404, {"message": "no such endpoint"}))
                if self.headers.get("Authorization") != "Token secret":
                    status, data = 401, {"message": "unauthorized access"}
                payload = b"" if data is None else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def changes(self) -> list[tuple[str, object]]:
        return [(call, body) for call, body in self.seen if not call.startswith("GET")]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def url(server: Server, tmp_path: Path) -> str:
    (tmp_path / "token").write_text("secret")
    return f"influxdb://127.0.0.1:{server.port}/power?org=ops&token_file={tmp_path / 'token'}"


TABLES = {*MEASUREMENTS, "document"}
RULES = [{"type": "expire", "everySeconds": 30 * 86_400}]


def test_version_2_gets_bucket_retention_and_mapping(server: Server, url: str) -> None:
    server.answers = {
        "GET /api/v2/orgs": (200, {"orgs": [{"id": "o1"}]}),
        "GET /api/v2/buckets": (200, {"buckets": []}),
        "POST /api/v2/buckets": (201, {"id": "b1"}),
        "GET /api/v2/dbrps": (200, {"content": []}),
        "POST /api/v2/dbrps": (201, {}),
    }
    assert len(init_store(url, 30, dry_run=True)) == 2
    assert server.changes() == []
    init_store(url, 30, dry_run=False)
    mapping = {"bucketID": "b1", "database": "power", "retention_policy": "autogen", "default": True, "orgID": "o1"}
    assert server.changes() == [
        ("POST /api/v2/buckets", {"name": "power", "orgID": "o1", "retentionRules": RULES}),
        ("POST /api/v2/dbrps", mapping),
    ]


def test_version_2_changes_only_what_differs(server: Server, url: str) -> None:
    bucket = {"id": "b1", "retentionRules": RULES}
    server.answers = {
        "GET /api/v2/orgs": (200, {"orgs": [{"id": "o1"}]}),
        "GET /api/v2/buckets": (200, {"buckets": [bucket]}),
        "GET /api/v2/dbrps": (200, {"content": [{"retention_policy": "autogen"}]}),
        "PATCH /api/v2/buckets/b1": (200, {}),
    }
    assert "everything is there" in init_store(url, 30, dry_run=False)[0]
    assert init_store(url, 60, dry_run=False) == ["bucket power: 60 days"]
    assert [call for call, _ in server.changes()] == ["PATCH /api/v2/buckets/b1"]


def test_version_2_answers_404_to_the_name_of_a_bucket_that_is_not_there(server: Server, url: str) -> None:
    """So do 2.0 to 2.9; and a token with the least rights, of buckets and orgs alone, makes no mapping from 2.4 on."""
    server.answers = {
        "GET /api/v2/orgs": (200, {"orgs": [{"id": "o1"}]}),
        "GET /api/v2/buckets": (404, {"code": "not found", "message": 'bucket "power" not found'}),
        "POST /api/v2/buckets": (201, {"id": "b1"}),
        "GET /api/v2/dbrps": (401, {"code": "unauthorized", "message": "read:orgs/o1/dbrp is unauthorized"}),
        "GET /health": (200, {"name": "influxdb", "status": "pass", "version": "v2.9.1"}),
    }
    assert init_store(url, 30, dry_run=False) == ["bucket power: made, 30 days"]
    assert [call for call, _ in server.changes()] == ["POST /api/v2/buckets"]
    server.answers["GET /health"] = (200, {"name": "influxdb", "status": "pass", "version": "2.3.0"})
    with pytest.raises(ConfigError, match="dbrp is unauthorized"):
        init_store(url, 30, dry_run=False)


def test_version_2_says_of_a_wrong_org_that_it_is_the_org(server: Server, url: str) -> None:
    text = 'organization name "ops" not found'
    server.answers = {"GET /api/v2/orgs": (404, {"code": "not found", "message": text})}
    with pytest.raises(ConfigError, match="check org in the store's URL") as refusal:
        init_store(url, 30, dry_run=False)
    assert "init-store" not in str(refusal.value)


def test_version_2_without_a_known_organization_is_refused(server: Server, url: str) -> None:
    server.answers = {"GET /api/v2/orgs": (200, {"orgs": []})}
    with pytest.raises(ConfigError, match="org: 'ops'"):
        init_store(url, 30, dry_run=False)


def test_version_3_gets_a_database_with_retention(server: Server, url: str) -> None:
    server.answers = {
        "GET /api/v3/configure/database": (200, [{"iox::database": "_internal"}]),
        "POST /api/v3/configure/database": (200, None),
    }
    server.answers["POST /api/v3/configure/table"] = (200, None)
    done = init_store(f"{url}&version=3", 30, dry_run=False)
    assert done == [
        "database power: made, 30 days",
        f"database power: {len(TABLES)} tables made, with all of their tags",
    ]
    assert server.changes()[0] == ("POST /api/v3/configure/database", {"db": "power", "retention_period": "30d"})
    made = {body["table"]: body for call, body in server.changes() if call == "POST /api/v3/configure/table"}
    assert set(made) == TABLES
    assert made["gpu_state"]["tags"] == ["site", "hall", "rack", "node", "gpu"]
    assert {"name": "up", "type": "float64"} in made["gpu_state"]["fields"]
    assert {"name": "reason", "type": "utf8"} in made["gpu_state"]["fields"]
    server.answers["GET /api/v3/configure/database"] = (200, [{"iox::database": "power"}])
    server.answers["GET /api/v3/query_sql"] = (200, [{"table_name": name} for name in TABLES])
    assert "everything is there" in init_store(f"{url}&version=3", 30, dry_run=False)[0]


def test_version_2_gets_a_bucket_and_a_mapping_per_class(server: Server, url: str) -> None:
    server.answers = {
        "GET /api/v2/orgs": (200, {"orgs": [{"id": "o1"}]}),
        "GET /api/v2/buckets": (200, {"buckets": []}),
        "POST /api/v2/buckets": (201, {"id": "b1"}),
        "GET /api/v2/dbrps": (200, {"content": []}),
        "POST /api/v2/dbrps": (201, {}),
    }
    assert len(init_store(f"{url}&retention=classes", None, dry_run=False)) == 6
    bodies = [body for _, body in server.changes()]
    kept = {body["name"]: body["retentionRules"][0]["everySeconds"] / 86_400 for body in bodies if "name" in body}
    assert kept == {"power": 7, "power/recent": 90, "power/history": 3650}
    mapped = [(body["database"], body["retention_policy"], body["default"]) for body in bodies if "bucketID" in body]
    assert mapped == [("power", "autogen", True), ("power", "recent", False), ("power", "history", False)]


def test_version_3_gets_a_database_per_class(server: Server, url: str) -> None:
    server.answers = {
        "GET /api/v3/configure/database": (200, [{"iox::database": "power"}]),
        "POST /api/v3/configure/database": (200, None),
    }
    server.answers["GET /api/v3/query_sql"] = (200, [{"table_name": "gpu"}])
    server.answers["POST /api/v3/configure/table"] = (200, None)
    init_store(f"{url}&version=3&retention=classes", None, dry_run=False)
    kept = {(body["db"], body["table"]) for _, body in server.changes() if "table" in body}
    assert {("power", "hall_10s"), ("power/recent", "document"), ("power/history", "weather")} <= kept
    assert ("power", "gpu") not in kept
    assert len(kept) == len(TABLES) - 1
    assert [body for _, body in server.changes() if "table" not in body] == [
        {"db": "power/recent", "retention_period": "90d"},
        {"db": "power/history", "retention_period": "3650d"},
    ]


def test_days_for_one_bucket_do_not_go_with_classes(url: str) -> None:
    with pytest.raises(Rejected, match="--retention-days: 30: is for one bucket"):
        init_store(f"{url}&retention=classes", 30, dry_run=False)


def test_a_refused_token_is_a_clear_error_without_the_token(
    server: Server, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("hunter2")
    assert main(["init-store", "--store", url]) == 1
    error = capsys.readouterr().err
    assert "not allowed (401): unauthorized access" in error
    assert "hunter2" not in error


def test_the_embedded_store_gets_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store.db"
    assert main(["init-store", "--store", f"sqlite:///{path}", "--dry-run"]) == 0
    assert not path.exists()
    assert main(["init-store", "--store", f"sqlite:///{path}"]) == 0
    assert path.exists()
    capsys.readouterr()


def test_a_store_of_another_kind_is_prepared_by_opening_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    module = types.ModuleType("planted_store")
    module.KIND = StoreKind("memory://", "memory://NAME", (), lambda url: opened.append(url) or io.BytesIO())
    monkeypatch.setitem(sys.modules, "planted_store", module)
    monkeypatch.setattr(store_open, "STORE_KINDS", {**STORE_KINDS, "memory": "planted_store"})
    assert init_store("memory://a", None, dry_run=True) == ["memory://a: tables of the schema"]
    assert opened == []
    init_store("memory://a", None, dry_run=False)
    assert opened == ["memory://a"]


def test_a_url_of_no_kind_of_store_is_refused_with_the_allowed_forms() -> None:
    with pytest.raises(ConfigError, match="'no_such_store://h/d': must be sqlite:///PATH or "):
        init_store("no_such_store://h/d", None, dry_run=True)
    with pytest.raises(ConfigError, match="scheme: 'no_such_store': must be influxdb://HOST:PORT/BUCKET"):
        parse_influx_url("no_such_store://h/d")


def test_a_retention_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="--retention-days: 0: must be at least 1"):
        init_store(f"sqlite:///{tmp_path / 'store.db'}", 0, dry_run=False)


def test_a_store_for_each_hall_is_prepared_store_by_store(tmp_path: Path) -> None:
    stores = {name: tmp_path / f"{name}.db" for name in ("site", "h1", "h2")}
    lines = [f'{name} = "sqlite:///{path}"\n' for name, path in stores.items()]
    (tmp_path / "stores.toml").write_text(f"{lines[0]}[halls]\n{lines[1]}{lines[2]}")
    url = f"halls:///{tmp_path}/stores.toml"
    assert [line.partition(":")[0] for line in init_store(url, None, dry_run=True)] == ["site", "h1", "h2"]
    assert not any(path.exists() for path in stores.values())
    init_store(url, None, dry_run=False)
    assert all(path.exists() for path in stores.values())
