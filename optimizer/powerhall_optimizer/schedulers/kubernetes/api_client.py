"""The Kubernetes API through the official client, as plain dictionaries and this project's errors."""

import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.runtime.settings import Secret
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings

__all__ = ["Conflict", "Gone", "KubernetesApi", "NotFound", "Object", "open_api"]

Object = dict[str, object]
_MERGE = "application/merge-patch+json"


class Conflict(Retryable):
    """The object was changed in between: read it again and decide anew."""


class NotFound(Rejected):
    """The cluster has no such object."""


class Gone(Retryable):
    """A watch began too far back: list again."""


def _translated(error: Exception, what: str) -> PowerhallError:
    status = getattr(error, "status", None)
    reason = " ".join(str(getattr(error, "reason", "") or error).split())[:200]
    if status == 409:
        return Conflict(f"kubernetes: {what}: changed in between")
    if status == 410:
        return Gone(f"kubernetes: {what}: too old a version")
    if status == 404:
        return NotFound(f"kubernetes: {what}: {status} {reason}")
    if status in (401, 403):
        return ConfigError(
            f"kubernetes: {what}: {status} {reason}: the service account needs the role in docs/guide/kubernetes.md"
        )
    if isinstance(status, int) and 400 <= status < 500 and status != 429:
        return Rejected(f"kubernetes: {what}: {status} {reason}")
    return Retryable(f"kubernetes: {what}: {reason}")


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
        self._batch, self._core = client.BatchV1Api(self._client), client.CoreV1Api(self._client)
        self._custom, self._leases = client.CustomObjectsApi(self._client), client.CoordinationV1Api(self._client)
        self._settings = settings

    def _call(self, what: str, call: Callable[[], object]) -> Object:
        try:
            answer = call()
        except _failures() as error:
            raise _translated(error, what) from None
        except ValueError as error:  # the client checks what comes back
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

    def _list(self, namespace: str, **select: object) -> object:
        if namespace:
            return self._batch.list_namespaced_job(namespace, **select)
        return self._batch.list_job_for_all_namespaces(**select)

    def job(self, namespace: str, name: str) -> Object:
        """Return one job."""
        return self._call(
            f"job {namespace}/{name}", lambda: self._batch.read_namespaced_job(name, namespace, **self._timeout)
        )

    def patch_job(self, namespace: str, name: str, patch: Object) -> Object:
        """Merge a patch into a job; with metadata.resourceVersion in it, Conflict when the job changed in between."""
        return self._call(
            f"patch job {namespace}/{name}",
            lambda: self._batch.patch_namespaced_job(name, namespace, patch, _content_type=_MERGE, **self._timeout),
        )

    def watch_jobs(self, version: str, seconds: float) -> Iterator[Object]:
        """Yield the managed jobs that change within so many seconds; Gone where the version is too old."""
        namespaces = self._settings.namespaces
        call = self._batch.list_job_for_all_namespaces
        where: list[str] = []
        if len(namespaces) == 1:
            call, where = self._batch.list_namespaced_job, [namespaces[0]]
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

    def nodes(self) -> list[Object]:
        """Return the cluster's nodes."""
        return cast(
            "list[Object]", self._call("list nodes", lambda: self._core.list_node(**self._timeout)).get("items") or []
        )

    def event(self, namespace: str, body: Object) -> None:
        """Write an event."""
        self._call("create event", lambda: self._core.create_namespaced_event(namespace, body, **self._timeout))

    def cluster_queue(self, name: str, patch: Object | None = None) -> Object:
        """Return a Kueue ClusterQueue, with a patch after merging it."""
        where = ("kueue.x-k8s.io", self._settings.kueue_version, "clusterqueues", name)
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
        made.ssl_ca_cert = settings.ca_file or None
        if settings.token_file:
            made.api_key = {"authorization": f"Bearer {Secret(settings.token_file).read()}"}
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
