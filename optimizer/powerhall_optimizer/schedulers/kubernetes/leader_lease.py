"""Leader lease: of several optimizers at most one writes. A lease is held by name and ends by itself."""

from datetime import UTC, datetime
from typing import cast

from powerhall.runtime.errors import Retryable
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.kubernetes.api_client import Conflict, KubernetesApi, NotFound, Object
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings

__all__ = ["take_lease"]


def _time(text: object) -> float:
    return datetime.fromisoformat(str(text)).timestamp() if text else 0.0


def take_lease(api: KubernetesApi, settings: KubernetesSettings, holder: str, now_s: float) -> None:
    """Take or renew the lease; Retryable names the holder where another one leads.

    Of two concurrent attempts one gets Conflict by the object's version.
    """
    stamp = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    spec: Object = {"holderIdentity": holder, "leaseDurationSeconds": settings.lease_s, "renewTime": stamp}
    try:
        lease = api.lease()
    except NotFound:
        meta = {"name": settings.lease_name, "namespace": settings.lease_namespace}
        made: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
        _write(api, made | {"spec": spec | {"acquireTime": stamp, "leaseTransitions": 0}}, create=True)
        return
    old = cast("Object", lease.get("spec") or {})
    leader = old.get("holderIdentity")
    until_s = _time(old.get("renewTime")) + float(cast("int", old.get("leaseDurationSeconds") or 0))
    if leader and leader != holder and until_s > now_s:
        raise Retryable(
            f"kubernetes: {leader} leads for another {until_s - now_s:.0f} s: this optimizer writes nothing"
        )
    if leader != holder:
        transitions = cast("int", old.get("leaseTransitions") or 0)
        spec |= {"acquireTime": stamp, "leaseTransitions": transitions + 1}
    _write(api, lease | {"spec": old | spec}, create=False)


def _write(api: KubernetesApi, lease: Object, *, create: bool) -> None:
    try:
        api.lease(lease, create=create)
    except Conflict:
        raise Retryable(texts.NO_LEADER) from None
