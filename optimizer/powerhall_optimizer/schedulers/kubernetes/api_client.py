"""The Kubernetes API through the official client, as plain dictionaries and this project's errors."""

import socket
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import cast

from powerhall.runtime.decode.http_answer import limit_manager
from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.decode.limits import MOST_COMMAND_BYTES
from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.runtime.files import check_regular
from powerhall.runtime.settings import Secret
from powerhall_optimizer.schedulers.kubernetes.gangs import GANG_KINDS, GangKind, gang_of
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.objects import Object, objects, part

__all__ = ["Conflict", "Gone", "KubernetesApi", "NotFound", "identity", "open_api"]

_MALFORMED = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What the client raises for an answer of another form than it knows."""
_UNAUTHORIZED = {
    401: "the token is wrong or has expired",
    403: "the service account needs the role in docs/guide/kubernetes.md",
}
_MERGE = "application/merge-patch+json"
_KUEUE = "kueue.x-k8s.io"
_CLAIMS = "resource.k8s.io"


class Conflict(Retryable):
    """The object was changed in between: read it again and decide anew."""


class NotFound(Rejected):
    """The cluster has no such object."""


class Gone(Retryable):
    """A watch began too far back: list again."""


def _told(error: Exception) -> str:
    """Return the server's own message of a refusal, or "" where its body is none of the API."""
    try:
        told = decode_plain_json(str(getattr(error, "body", "") or "").encode(), "answer")
    except PowerhallError:
        return ""
    return str(told.get("message") or "") if isinstance(told, dict) else ""


def _translated(error: Exception, what: str) -> PowerhallError:
    status = getattr(error, "status", None)
    reason = " ".join(f"{getattr(error, 'reason', '') or error} {_told(error)}".split())[:300]
    if status == 409:
        return Conflict(f"kubernetes: {what}: changed in between")
    if status == 410:
        return Gone(f"kubernetes: {what}: too old a version")
    if status == 404:
        return NotFound(f"kubernetes: {what}: {status} {reason}")
    if status in _UNAUTHORIZED:
        return ConfigError(f"kubernetes: {what}: {status} {reason}: {_UNAUTHORIZED[status]}")
    if isinstance(status, int) and 400 <= status < 500 and status != 429:
        return Rejected(f"kubernetes: {what}: {status} {reason}")
    return Retryable(f"kubernetes: {what}: {reason}")


def _of_kind(kind: GangKind, listed: Object) -> list[Object]:
    """Return the objects of a list, each with its kind."""
    version = {"apiVersion": listed.get("apiVersion")}
    return [version | one | {"kind": kind.kind} for one in objects(listed.get("items"))]


def _failures() -> tuple[type[Exception], ...]:
    """Return the client's exceptions; imported late, because it takes half a second."""
    api: type[Exception] = import_module("kubernetes.client").ApiException
    http: type[Exception] = import_module("urllib3.exceptions").HTTPError
    return api, http


class KubernetesApi:
    """The API calls that a round needs."""

    def __init__(self, settings: KubernetesSettings) -> None:
        client = import_module("kubernetes.client")
        self._client = client.ApiClient(_configuration(settings))
        limit_manager(self._client.rest_client.pool_manager, MOST_COMMAND_BYTES)
        self._batch, self._core = client.BatchV1Api(self._client), client.CoreV1Api(self._client)
        self._custom, self._leases = client.CustomObjectsApi(self._client), client.CoordinationV1Api(self._client)
        self._apis = client.ApisApi(self._client)
        self._settings = settings

    def _call(self, what: str, call: Callable[[], object]) -> Object:
        try:
            answer = call()
        except _failures() as error:
            raise _translated(error, what) from None
        except _MALFORMED as error:  # the client checks what comes back
            text = " ".join(str(error).split())[:200]
            raise Rejected(f"kubernetes: {what}: the answer is not what the client knows: {text}") from None
        return cast("Object", self._client.sanitize_for_serialization(answer))

    @property
    def _timeout(self) -> dict[str, float]:
        return {"_request_timeout": self._settings.timeout_s}

    def jobs(self) -> tuple[list[Object], str]:
        """Return the managed jobs of the settings' namespaces, and the version of the list."""
        select = {"label_selector": self._settings.selector} | self._timeout
        found: list[Object] = []
        version = ""
        for namespace in self._settings.namespaces or ("",):
            listed = self._call(f"list jobs {namespace}".strip(), lambda ns=namespace: self._list(ns, **select))  # type: ignore[misc]
            found.extend(cast("list[Object]", listed.get("items") or []))
            version = str(cast("Object", listed.get("metadata") or {}).get("resourceVersion", ""))
        return found, version

    def gangs(self) -> tuple[list[Object], list[tuple[str, str]]]:
        """Return the managed JobSets, RayJobs and LeaderWorkerSets of the settings' namespaces.

        Beside them: each kind (PLURAL.GROUP) that may not be listed, with the refusal.
        """
        select = {"label_selector": self._settings.selector} | self._timeout
        found: list[Object] = []
        refused: list[tuple[str, str]] = []
        for kind in GANG_KINDS:
            if kind.group not in self._served:
                continue
            where = (kind.group, self._served[kind.group][0])
            try:
                for namespace in self._settings.namespaces or ("",):
                    if namespace:
                        at = (*where, namespace, kind.plural)
                        call = partial(self._custom.list_namespaced_custom_object, *at, **select)
                    else:
                        call = partial(self._custom.list_cluster_custom_object, *where, kind.plural, **select)
                    found += _of_kind(kind, self._call(f"list {kind.plural} {namespace}".strip(), call))
            except NotFound:  # the group is served, this kind of it is not
                continue
            except ConfigError as error:
                refused.append((f"{kind.plural}.{kind.group}", str(error)))
        return found, refused

    @cached_property
    def _served(self) -> dict[str, list[str]]:
        """The served versions of each API group, the preferred first."""
        try:
            listed = self._call("list API groups", lambda: self._apis.get_api_versions(**self._timeout))
        except NotFound:
            return {}
        groups: dict[str, list[str]] = {}
        for group in objects(listed.get("groups")):
            first = str(part(group, "preferredVersion").get("version") or "")
            versions = [str(one.get("version")) for one in objects(group.get("versions"))]
            groups[str(group.get("name"))] = sorted(versions, key=lambda one, first=first: one != first)  # type: ignore[misc]
        return groups

    def _gang(self, short: str) -> tuple[tuple[str, str], str, str] | None:
        """Return group and version, plural and name of KIND/NAME; None of a Job."""
        if (found := gang_of(short)) is None:
            return None
        kind, name = found
        return (kind.group, self._served[kind.group][0]), kind.plural, name

    def _list(self, namespace: str, **select: object) -> object:
        if namespace:
            return self._batch.list_namespaced_job(namespace, **select)
        return self._batch.list_job_for_all_namespaces(**select)

    def job(self, namespace: str, name: str) -> Object:
        """Return one job; `name` is KIND/NAME where it is no Job."""
        if gang := self._gang(name):
            at = (*gang[0], namespace, *gang[1:])
            return self._call(
                f"job {namespace}/{name}", partial(self._custom.get_namespaced_custom_object, *at, **self._timeout)
            )
        return self._call(
            f"job {namespace}/{name}", lambda: self._batch.read_namespaced_job(name, namespace, **self._timeout)
        )

    def patch_job(self, namespace: str, name: str, patch: Object) -> Object:
        """Merge a patch into a job; with metadata.resourceVersion in it, Conflict when the job changed in between."""
        if gang := self._gang(name):
            at = (*gang[0], namespace, *gang[1:], patch)
            call = partial(self._custom.patch_namespaced_custom_object, *at, _content_type=_MERGE, **self._timeout)
            return self._call(f"patch job {namespace}/{name}", call)
        return self._call(
            f"patch job {namespace}/{name}",
            lambda: self._batch.patch_namespaced_job(name, namespace, patch, _content_type=_MERGE, **self._timeout),
        )

    def job_status(self, namespace: str, name: str, patch: Object) -> Object:
        """Merge a patch into a job's status."""
        return self._call(
            f"patch status of job {namespace}/{name}",
            lambda: self._batch.patch_namespaced_job_status(
                name, namespace, patch, _content_type=_MERGE, **self._timeout
            ),
        )

    def pods(self) -> list[Object]:
        """Return the pods of all namespaces that have not ended: whatever holds GPUs draws power."""
        select = {"field_selector": "status.phase!=Succeeded,status.phase!=Failed"} | self._timeout
        listed = self._call("list pods", lambda: self._core.list_pod_for_all_namespaces(**select))
        return cast("list[Object]", listed.get("items") or [])

    def pods_of(self, namespace: str, job: str, label: str) -> list[Object]:
        """Return the pods of a job, by their label."""
        select = {"label_selector": label} | self._timeout
        listed = self._call(
            f"list pods of {namespace}/{job}", lambda: self._core.list_namespaced_pod(namespace, **select)
        )
        return cast("list[Object]", listed.get("items") or [])

    def patch_pod(self, namespace: str, name: str, patch: Object) -> Object:
        """Merge a patch into a pod."""
        return self._call(
            f"patch pod {namespace}/{name}",
            lambda: self._core.patch_namespaced_pod(name, namespace, patch, _content_type=_MERGE, **self._timeout),
        )

    def watch_jobs(self, version: str, seconds: float, namespace: str = "") -> Iterator[Object]:
        """Yield the managed jobs that change within so many seconds; Gone where the version is too old."""
        call, where = self._batch.list_job_for_all_namespaces, list[str]()
        if namespace:
            call, where = self._batch.list_namespaced_job, [namespace]
        stream = (
            import_module("kubernetes.watch")
            .Watch()
            .stream(
                call,
                *where,
                label_selector=self._settings.selector,
                resource_version=version,
                timeout_seconds=max(1, round(seconds)),
                _request_timeout=seconds + self._settings.timeout_s,
            )
        )
        try:
            for event in stream:
                yield cast("Object", event["raw_object"])
        except _failures() as error:
            raise _translated(error, "watch jobs") from None
        except _MALFORMED as error:
            raise Retryable(f"kubernetes: watch jobs: the answer is not what the client knows: {error}") from None

    def nodes(self) -> list[Object]:
        """Return the cluster's nodes."""
        return cast(
            "list[Object]", self._call("list nodes", lambda: self._core.list_node(**self._timeout)).get("items") or []
        )

    def resource_claims(self) -> list[Object]:
        """Return the claims of devices in all namespaces; none where the cluster serves none, or may not be asked."""
        served = self._served.get(_CLAIMS)
        if not served:
            return []
        at = (_CLAIMS, "v1" if "v1" in served else served[0], "resourceclaims")
        call = partial(self._custom.list_cluster_custom_object, *at, **self._timeout)
        try:
            return cast("list[Object]", self._call("list resourceclaims", call).get("items") or [])
        except (NotFound, ConfigError):
            return []

    def event(self, namespace: str, body: Object) -> None:
        """Write an event."""
        self._call("create event", lambda: self._core.create_namespaced_event(namespace, body, **self._timeout))

    @cached_property
    def kueue_version(self) -> str:
        """The version of Kueue's API that the cluster prefers, or that the settings name; Rejected without Kueue."""
        served = self._served.get(_KUEUE)
        if not served:
            raise Rejected(f"kubernetes: {_KUEUE}: this cluster has no Kueue")
        wanted = self._settings.kueue_version
        if wanted and wanted not in served:
            raise ConfigError.field(
                "settings", "kubernetes.kueue_version", wanted, f"is not served, must be one of {', '.join(served)}"
            )
        return wanted or served[0]

    def workloads(self) -> list[Object]:
        """Return Kueue's Workloads of the settings' namespaces."""
        found: list[Object] = []
        for namespace in self._settings.namespaces or ("",):
            if namespace:
                where = (_KUEUE, self.kueue_version, namespace, "workloads")
                call = partial(self._custom.list_namespaced_custom_object, *where, **self._timeout)
            else:
                call = partial(
                    self._custom.list_cluster_custom_object, _KUEUE, self.kueue_version, "workloads", **self._timeout
                )
            found += cast("list[Object]", self._call("list workloads", call).get("items") or [])
        return found

    def patch_workload(self, namespace: str, name: str, patch: Object) -> Object:
        """Merge a patch into a Workload of Kueue."""
        where = (_KUEUE, self.kueue_version, namespace, "workloads", name)
        return self._call(
            f"patch workload {namespace}/{name}",
            lambda: self._custom.patch_namespaced_custom_object(*where, patch, _content_type=_MERGE, **self._timeout),
        )

    def local_queue(self, namespace: str, name: str) -> Object:
        """Return a Kueue LocalQueue."""
        where = (_KUEUE, self.kueue_version, namespace, "localqueues", name)
        return self._call(
            f"localqueue {namespace}/{name}",
            lambda: self._custom.get_namespaced_custom_object(*where, **self._timeout),
        )

    def cluster_queue(self, name: str, patch: Object | None = None) -> Object:
        """Return a Kueue ClusterQueue, with a patch after merging it."""
        where = (_KUEUE, self.kueue_version, "clusterqueues", name)
        if patch is None:
            return self._call(
                f"clusterqueue {name}", lambda: self._custom.get_cluster_custom_object(*where, **self._timeout)
            )
        return self._call(
            f"patch clusterqueue {name}",
            lambda: self._custom.patch_cluster_custom_object(*where, patch, _content_type=_MERGE, **self._timeout),
        )

    def lease(self, body: Object | None = None, *, create: bool = False) -> Object:
        """Return the leader lease, after replacing or creating it where there is a body."""
        name, namespace = self._settings.lease_name, self._settings.lease_namespace
        if body is None:
            call: Callable[[], object] = lambda: self._leases.read_namespaced_lease(name, namespace, **self._timeout)  # noqa: E731
        elif create:
            call = lambda: self._leases.create_namespaced_lease(namespace, body, **self._timeout)  # noqa: E731
        else:
            call = lambda: self._leases.replace_namespaced_lease(name, namespace, body, **self._timeout)  # noqa: E731
        return self._call(f"lease {namespace}/{name}", call)


def _configuration(settings: KubernetesSettings) -> object:
    """Return the client's configuration: the settings' server, the pod's service account, or the kubeconfig."""
    config = import_module("kubernetes.config")
    made = import_module("kubernetes.client").Configuration()
    if settings.server:
        made.host = settings.server
        try:
            check_regular(settings.ca_file)  # a pipe would be waited for without end
        except OSError as error:
            raise ConfigError(f"settings: kubernetes.ca_file: {settings.ca_file}: {error.strerror}") from None
        made.ssl_ca_cert = settings.ca_file or None
        if settings.token_file:
            made.api_key = {"authorization": f"Bearer {Secret(settings.token_file).read_token()}"}
        if settings.token_file and not settings.server.startswith("https://"):
            host = settings.server.removeprefix("http://").split("/")[0].rpartition(":")[0]
            if host not in ("127.0.0.1", "localhost", "[::1]"):
                raise ConfigError.field(
                    "settings", "kubernetes.server", settings.server, "must be https:// with a token"
                )
        return made
    try:
        if Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists():
            config.load_incluster_config(made)
        else:
            config.load_kube_config(context=settings.context or None, client_configuration=made)
    except config.ConfigException as error:
        raise ConfigError(f"kubernetes: no way to reach a cluster: {' '.join(str(error).split())}") from None
    return made


def open_api(settings: KubernetesSettings) -> KubernetesApi:
    """Return the API; ConfigError with the missing extra where the client is not installed."""
    try:
        return KubernetesApi(settings)
    except ImportError:
        raise ConfigError("kubernetes: needs the extra 'kubernetes': pip install 'powerhall[kubernetes]'") from None


def identity() -> str:
    """Return the name of this host (in a cluster: of this pod), under which it leads."""
    return socket.gethostname()
