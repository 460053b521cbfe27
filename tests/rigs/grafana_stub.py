"""A stand-in for Grafana's HTTP API: it keeps folders, data sources and dashboards, and runs queries on a real store.

Written after Grafana's HTTP API documentation and OpenAPI description; it refuses what Grafana refuses (no token, too
few rights, unknown folders, stale versions, empty titles) and knows only the endpoints that Grafana 10 to 13 share, so
that a call to any other fails. Queries go to InfluxDB as Grafana's back end sends them: macros put in, Basic auth of
the data source, answers turned into data frames.
"""

import base64
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADMIN, VIEWER = "glsa_admin", "glsa_viewer"
Answer = tuple[int, dict]


class GrafanaStub:
    """A server on a free port of loopback; `calls` keeps method and path of every request."""

    def __init__(self, version: str = "12.2.0", *, saves_by_v1: bool = False) -> None:
        self.saves_by_v1 = saves_by_v1
        self.version = version
        self.folders: dict[str, dict] = {}
        self.datasources: dict[str, dict] = {}
        self.dashboards: dict[str, dict] = {}
        self.calls: list[str] = []
        self.broken: tuple[int, dict] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                outer.calls.append(f"{self.command} {self.path}")
                status, data = outer.broken or outer.route(
                    self.command, self.path, body, self.headers.get("Authorization")
                )
                payload = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def route(self, method: str, path: str, body: dict | None, authorization: str | None) -> Answer:
        if (method, path) == ("GET", "/api/health"):
            return 200, {"commit": "0", "database": "ok", "version": self.version}
        token = (authorization or "").removeprefix("Bearer ")
        if token not in (ADMIN, VIEWER):
            return 401, {"message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401, "traceID": ""}
        if method in ("POST", "PUT") and token == VIEWER and path != "/api/ds/query":
            return 403, {
                "message": "You'll need additional permissions to perform this action. Permissions needed: any of"
            }
        parts = path.strip("/").split("/")[1:]
        match (method, *parts):
            case ("GET", listed) if listed.split("?")[0] == "folders":
                return 200, list(self.folders.values())
            case ("GET", "folders", uid):
                return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})
            case ("POST", "folders"):
                return self._make_folder(body)
            case ("GET", "datasources", "uid", uid):
                return self._datasource(uid)
            case ("POST", "datasources"):
                return self._make_datasource(body)
            case ("PUT", "datasources", "uid", uid):
                return self._change_datasource(uid, body)
            case ("GET", "datasources", "uid", uid, "health"):
                return self._health(uid)
            case ("GET", "dashboards", "uid", uid):
                if uid not in self.dashboards:
                    return 404, {"message": "Dashboard not found"}
                return 200, {"dashboard": self.dashboards[uid], "meta": {"type": "db", "slug": uid}}
            case ("POST", "dashboards", "db"):
                return self._save(body)
            case ("POST", "ds", "query"):
                return self._query(body)
        return 404, {"message": "Not found"}

    def _make_folder(self, body: dict) -> Answer:
        if not body.get("title"):
            return 400, {"message": "folder title cannot be empty"}
        if body["uid"] in self.folders:
            return 409, {"message": "a folder with the same UID already exists"}
        self.folders[body["uid"]] = {"id": len(self.folders) + 1, "version": 1, **body}
        return 200, self.folders[body["uid"]]

    def _datasource(self, uid: str) -> Answer:
        if uid not in self.datasources:
            return 404, {"message": "Data source not found"}
        shown = {name: value for name, value in self.datasources[uid].items() if name != "secureJsonData"}
        return 200, shown | {"secureJsonFields": dict.fromkeys(self.datasources[uid].get("secureJsonData", {}), True)}

    def _make_datasource(self, body: dict) -> Answer:
        for name in ("name", "type", "access"):
            if not body.get(name):
                return 400, {"message": "bad request data"}
        if any(body["name"] == other["name"] or body["uid"] == other["uid"] for other in self.datasources.values()):
            return 409, {"message": "data source with the same name already exists"}
        self.datasources[body["uid"]] = {"id": len(self.datasources) + 1, "version": 1, **body}
        return 200, {"datasource": self._datasource(body["uid"])[1], "message": "Datasource added"}

    def _change_datasource(self, uid: str, body: dict) -> Answer:
        if uid not in self.datasources:
            return 404, {"message": "Data source not found"}
        self.datasources[uid] |= body | {"version": self.datasources[uid]["version"] + 1}
        return 200, {"datasource": self._datasource(uid)[1], "message": "Datasource updated"}

    def _health(self, uid: str) -> Answer:
        if uid not in self.datasources:
            return 404, {"message": "Data source not found"}
        try:
            series = self._influx(uid, "SHOW MEASUREMENTS")
        except (urllib.error.URLError, ValueError) as error:
            return 400, {"status": "ERROR", "message": f"error performing influxQL query: {error}", "details": {}}
        count = sum(len(entry["values"]) for entry in series)
        return 200, {"status": "OK", "message": f"datasource is working. {count} measurements found", "details": None}

    def _save(self, body: dict) -> Answer:
        data, folder = body["dashboard"], body.get("folderUid", "")
        if not data.get("title"):
            return 400, {"message": "Dashboard title cannot be empty", "status": "empty-name"}
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        if len(data["uid"]) > 40:
            return 400, {"message": "uid too long, max 40 characters"}
        old = self.dashboards.get(data["uid"])
        if old and not body.get("overwrite") and data.get("version") != old["version"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        version = (old["version"] if old else 0) + 1
        number = old["id"] if old else len(self.dashboards) + 1
        kept = _saved_by_v1(json.loads(json.dumps(data))) if self.saves_by_v1 else data
        self.dashboards[data["uid"]] = {**kept, "id": number, "version": version}
        return 200, {"id": number, "uid": data["uid"], "status": "success", "version": version}

    def _query(self, body: dict) -> Answer:
        results, status = {}, 200
        for query in body["queries"]:
            uid = query["datasource"]["uid"]
            if uid not in self.datasources:
                return 404, {"message": "data source not found"}
            try:
                text = _macros(query, int(body["from"]), int(body["to"]))
                series = self._influx(uid, text, query.get("policy") or "default")
            except ValueError as error:
                results[query["refId"]] = {"error": f"InfluxDB returned error: {error}", "status": 400, "frames": []}
                status = 400
            except urllib.error.URLError as error:
                results[query["refId"]] = {"error": str(error), "status": 502, "frames": []}
                status = 400
            else:
                frames = [frame for entry in series for frame in _frames(entry, query)]
                results[query["refId"]] = {"status": 200, "frames": frames}
        return status, {"results": results}

    def _influx(self, uid: str, text: str, policy: str = "default") -> list[dict]:
        """Ask as Grafana does: the query's retention policy goes along unless it is the default one."""
        source = self.datasources[uid]
        form = {"db": source["jsonData"]["dbName"], "epoch": "ms", "q": text}
        form |= {} if policy == "default" else {"rp": policy}
        request = urllib.request.Request(f"{source['url']}/query", urllib.parse.urlencode(form).encode())
        if source.get("basicAuth"):
            pair = f"{source['basicAuthUser']}:{source['secureJsonData']['basicAuthPassword']}"
            request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                results = json.load(answer)["results"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error")) from None
        if results[0].get("error"):
            raise ValueError(results[0]["error"])
        return results[0].get("series", [])


def _saved_by_v1(data: dict) -> dict:
    """Store a dashboard as the v1 API does: apps/dashboard/pkg/migration/frontend_defaults.go, read there."""
    built_in = {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    data["annotations"]["list"].insert(0, built_in)
    data = {"timepicker": {}, "weekStart": "", "editable": True, "links": [], **data, "schemaVersion": 42}
    for variable in data["templating"]["list"]:
        variable |= {"options": [], "current": {"text": "phx", "value": "phx"}}
    defaults = {"transparent": False, "links": [], "options": {}, "title": "", "targets": [{"refId": "A"}]}
    defaults["fieldConfig"] = {"defaults": {}, "overrides": []}
    panels = []
    for panel in data["panels"]:
        kept = {name: value for name, value in panel.items() if name not in defaults or value != defaults[name]}
        if kept["type"] != "row":
            kept.setdefault("fieldConfig", {}).setdefault("overrides", [])
        panels.append(kept)
    panels.sort(key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
    return _without_nulls({**data, "panels": panels})


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _macros(query: dict, start_ms: int, end_ms: int) -> str:
    text = query["query"].replace("$timeFilter", f"time >= {start_ms}ms and time <= {end_ms}ms")
    return text.replace("$__interval", f"{query['intervalMs']}ms")


def _frames(series: dict, query: dict) -> list[dict]:
    """A frame per series and column, as for charts, or one with tags as columns, as for tables."""
    tags, columns = series.get("tags", {}), series["columns"]
    values = [list(column) for column in zip(*series["values"], strict=True)]
    if query["resultFormat"] == "table":
        names = ["Time", *tags, *columns[1:]]
        data = [values[0], *([value] * len(values[0]) for value in tags.values()), *values[1:]]
        return [
            {
                "schema": {"refId": query["refId"], "fields": [{"name": name} for name in names]},
                "data": {"values": data},
            }
        ]
    frames = []
    for name, column in zip(columns[1:], values[1:], strict=True):
        value = {"name": "Value", "labels": tags, "config": {"displayNameFromDS": name}}
        schema = {"refId": query["refId"], "fields": [{"name": "Time", "type": "time"}, value]}
        frames.append({"schema": schema, "data": {"values": [values[0], column]}})
    return frames
