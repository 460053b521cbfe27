"""A small fake Kubernetes API server on loopback, spoken to by the real Python client and the real kubectl.

It keeps objects in memory and does what the tests are about: discovery, list with label selectors, get, create,
replace, merge patch, optimistic locking by resourceVersion (409), watches with history (410 when it is cut), the
rule that a Job's template may change only while it is suspended (422), and a role that may be narrowed (403). It runs
no controllers: `change` stands in for them.
"""

import copy
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_KINDS = {
    ("", "v1", "nodes"): ("Node", False),
    ("", "v1", "pods"): ("Pod", True),
    ("", "v1", "events"): ("Event", True),
    ("batch", "v1", "jobs"): ("Job", True),
    ("resource.k8s.io", "v1", "resourceclaims"): ("ResourceClaim", True),
    ("coordination.k8s.io", "v1", "leases"): ("Lease", True),
    ("kueue.x-k8s.io", "v1beta2", "clusterqueues"): ("ClusterQueue", False),
    ("kueue.x-k8s.io", "v1beta2", "localqueues"): ("LocalQueue", True),
    ("kueue.x-k8s.io", "v1beta2", "workloads"): ("Workload", True),
    ("jobset.x-k8s.io", "v1alpha2", "jobsets"): ("JobSet", True),
    ("ray.io", "v1", "rayjobs"): ("RayJob", True),
    ("leaderworkerset.x-k8s.io", "v1", "leaderworkersets"): ("LeaderWorkerSet", True),
}
_PORTS = range(21700, 21800)


@dataclass
class KubernetesRig:
    """The server's state; `requests` are (verb, resource) of everything that was asked."""

    url: str = ""
    version: int = 100
    oldest: int = 0
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    history: list[tuple[int, str, str, dict[str, Any]]] = field(default_factory=list)
    watchers: list[tuple[str, "queue.Queue[tuple[int, str, dict[str, Any]]]"]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    before_patch: Callable[[str], None] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, resource: str, raw: dict[str, Any]) -> dict[str, Any]:
        """Make or replace an object, as a user or a controller would."""
        with self.lock:
            meta = raw.setdefault("metadata", {})
            key = (resource, meta.get("namespace", ""), meta["name"])
            event = "MODIFIED" if key in self.objects else "ADDED"
            self.version += 1
            meta["resourceVersion"] = str(self.version)
            meta.setdefault("uid", f"uid-{meta['name']}")
            meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            self.objects[key] = raw
            seen = copy.deepcopy(raw)
            self.history.append((self.version, resource, event, seen))
            for wanted, events in self.watchers:
                if wanted == resource:
                    events.put((self.version, event, seen))
            return raw

    def get(self, resource: str, name: str, namespace: str = "") -> dict[str, Any]:
        """Return a copy of an object."""
        with self.lock:
            return copy.deepcopy(self.objects[resource, namespace, name])

    def change(self, resource: str, name: str, namespace: str, patch: dict[str, Any]) -> dict[str, Any]:
        """Merge a patch into an object, as a user or a controller would."""
        with self.lock:
            return self.put(resource, _merged(self.get(resource, name, namespace), patch))

    def names(self, resource: str) -> list[str]:
        """Return the names of all objects of a resource."""
        with self.lock:
            return [name for kind, _, name in self.objects if kind == resource]

    def all(self, resource: str) -> list[dict[str, Any]]:
        """Return copies of all objects of a resource."""
        with self.lock:
            return [copy.deepcopy(raw) for (kind, _, _), raw in self.objects.items() if kind == resource]

    def cut_history(self) -> None:
        """Forget old versions, as a server does when it compacts: watches from before get 410."""
        with self.lock:
            self.oldest = self.version
            self.history.clear()


def _merged(old: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


class _Refused(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


def _selected(raw: dict[str, Any], selector: str) -> bool:
    labels = raw["metadata"].get("labels", {})
    return all(labels.get(p.partition("=")[0]) == p.partition("=")[2] for p in selector.split(",") if p)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rig: KubernetesRig

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        body: dict[str, Any] = json.loads(self.rfile.read(length) or b"{}")
        return body

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _do(self, verb: str) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self._body()
        try:
            if (found := _discovery(parts.path)) is not None:
                self._send(200, found)
                return
            group, version, resource, namespace, name, part = _route(parts.path)
            kind, _ = _KINDS[group, version, resource]
            if verb == "get" and not name:
                verb = "watch" if query.get("watch") in ("1", "true", "True") else "list"
            self.rig.requests.append((verb, f"{resource}/{part}" if part else resource))
            self._authorized(verb, resource)
            api = f"{group}/{version}" if group else version
            if verb == "watch":
                self._watch(resource, namespace, query)
            elif verb == "list":
                self._send(200, self._list(resource, namespace, query.get("labelSelector", ""), kind, api))
            else:
                status = 201 if verb == "create" else 200
                self._send(
                    status, {"apiVersion": api, "kind": kind} | self._write(verb, resource, namespace, name, body)
                )
        except _Refused as refused:
            told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": refused.message}
            self._send(refused.status, told | {"reason": refused.reason, "code": refused.status})

    def _authorized(self, verb: str, resource: str) -> None:
        if (verb, resource) in self.rig.forbidden:
            raise _Refused(403, "Forbidden", f"{resource} is forbidden: cannot {verb}")

    def _list(self, resource: str, namespace: str, selector: str, kind: str, api: str) -> dict[str, Any]:
        with self.rig.lock:
            items = [
                {"apiVersion": api, "kind": kind} | raw
                for (known, where, _), raw in self.rig.objects.items()
                if known == resource and namespace in ("", where) and _selected(raw, selector)
            ]
            meta = {"resourceVersion": str(self.rig.version)}
            return copy.deepcopy({"kind": f"{kind}List", "apiVersion": api, "metadata": meta, "items": items})

    def _write(self, verb: str, resource: str, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        rig = self.rig
        if verb == "patch" and rig.before_patch:
            rig.before_patch(name)
        with rig.lock:
            if verb == "create":
                name = body["metadata"]["name"]
                if (resource, namespace, name) in rig.objects:
                    raise _Refused(409, "AlreadyExists", f"{resource} {name} already exists")
                body["metadata"]["namespace"] = namespace
                return copy.deepcopy(rig.put(resource, body))
            if (resource, namespace, name) not in rig.objects:
                raise _Refused(404, "NotFound", f'{resource} "{name}" not found')
            old = rig.get(resource, name, namespace)
            if verb == "get":
                return old
            asked = body.get("metadata", {}).get("resourceVersion")
            if asked and asked != old["metadata"]["resourceVersion"]:
                raise _Refused(409, "Conflict", f"{resource} {name}: the object has been modified")
            if verb == "patch" and "merge-patch" not in self.headers["Content-Type"]:
                raise _Refused(415, "UnsupportedMediaType", f"patch of type {self.headers['Content-Type']}")
            new = _merged(old, body) if verb == "patch" else body
            fixed = not old.get("spec", {}).get("suspend") or old.get("status", {}).get("startTime")
            if resource == "jobs" and fixed and new["spec"]["template"] != old["spec"]["template"]:
                raise _Refused(422, "Invalid", f"{name}: spec.template: field is immutable")
            if new == old:
                return old
            return copy.deepcopy(rig.put(resource, new))

    def _watch(self, resource: str, namespace: str, query: dict[str, str]) -> None:
        rig, since = self.rig, int(query.get("resourceVersion") or 0)
        events: queue.Queue[tuple[int, str, dict[str, Any]]] = queue.Queue()
        with rig.lock:
            gone = 0 < since < rig.oldest
            for version, known, event, raw in rig.history:
                if known == resource and version > since:
                    events.put((version, event, raw))
            rig.watchers.append((resource, events))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if gone:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            self._chunk({"type": "ERROR", "object": status})
        else:
            self._follow(events, namespace, query)
        self.wfile.write(b"0\r\n\r\n")
        rig.watchers.remove((resource, events))

    def _follow(
        self, events: "queue.Queue[tuple[int, str, dict[str, Any]]]", namespace: str, query: dict[str, str]
    ) -> None:
        import time

        end = time.monotonic() + float(query.get("timeoutSeconds") or 5)
        while (left := end - time.monotonic()) > 0:
            try:
                _, event, raw = events.get(timeout=left)
            except queue.Empty:
                return
            if namespace in ("", raw["metadata"].get("namespace")) and _selected(raw, query.get("labelSelector", "")):
                self._chunk({"type": event, "object": {"apiVersion": "batch/v1", "kind": "Job"} | raw})

    def _chunk(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def do_GET(self) -> None:
        """Get, list and watch."""
        self._do("get")

    def do_POST(self) -> None:
        """Create."""
        self._do("create")

    def do_PUT(self) -> None:
        """Replace."""
        self._do("update")

    def do_PATCH(self) -> None:
        """Merge patch."""
        self._do("patch")


def _route(path: str) -> tuple[str, str, str, str, str, str]:
    """Return group, version, resource, namespace, name and subresource of a path."""
    parts = path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    namespace = ""
    if rest and rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, part = (*rest, "", "", "")[:3]
    if (group, version, resource) not in _KINDS:
        raise _Refused(404, "NotFound", f"the server could not find {path}")
    return group, version, resource, namespace, name, part


def _discovery(path: str) -> dict[str, Any] | None:
    """Return what clients ask for first: versions, groups and resources."""
    path = path.rstrip("/")
    groups = sorted({(group, version) for group, version, _ in _KINDS if group})
    if path == "/version":
        return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        listed = []
        for group, version in groups:
            entry = {"groupVersion": f"{group}/{version}", "version": version}
            listed.append({"name": group, "versions": [entry], "preferredVersion": entry})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    for group, version in [("", "v1"), *groups]:
        if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
            resources = [
                {"name": name, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind}
                | {"verbs": ["get", "list", "watch", "create", "update", "patch"]}
                for (g, v, name), (kind, namespaced) in _KINDS.items()
                if (g, v) == (group, version)
            ]
            told = {"kind": "APIResourceList", "groupVersion": f"{group}/{version}" if group else version}
            return told | {"resources": resources}
    return None


@contextmanager
def start() -> Iterator[KubernetesRig]:
    """Start the server on a free port, and stop it at the end."""
    rig = KubernetesRig()
    handler = type("Handler", (_Handler,), {"rig": rig})
    for port in _PORTS:
        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), handler)
            break
        except OSError:
            continue
    else:
        raise RuntimeError(f"no free port in {_PORTS}")
    server.daemon_threads = True
    rig.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield rig
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
