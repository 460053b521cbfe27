"""The table [kubernetes] of the scheduler settings."""

import msgspec

from powerhall_optimizer.schedulers.base import check_numbers
from powerhall_optimizer.schedulers.job_fields import JobFields

__all__ = ["KubernetesSettings", "check_settings"]


class KubernetesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a plan is written into Kubernetes; see docs/kubernetes.md.

    `server` and `token_file` are for tests and special cases: otherwise the pod's service account or the kubeconfig
    (with `context`) is used. `namespaces`: where jobs are managed (empty: all). `queues` maps halls to Kueue queues.
    `identity`: the name under which it leads (default: the host's, in a cluster the pod's). `settle_s`: how long it
    watches afterwards for writes that somebody turns back.
    `cluster_queue` ("" for none): the ClusterQueue whose quota of `watts_resource` follows the budget of `zone`.
    """

    server: str = ""
    token_file: str = ""
    ca_file: str = ""
    context: str = ""
    namespaces: tuple[str, ...] = ()
    selector: str = "powerhall.io/managed=true"
    gpu_resource: str = "nvidia.com/gpu"
    queues: dict[str, str] = {}
    cluster_queue: str = ""
    watts_resource: str = "powerhall.io/watts"
    kueue_version: str = "v1beta1"
    zone: str = ""
    lease_namespace: str = "powerhall"
    lease_name: str = "powerhall-optimizer"
    lease_s: int = 60
    identity: str = ""
    settle_s: float = 0.0
    timeout_s: float = 30.0
    fields: JobFields = JobFields()


def check_settings(settings: KubernetesSettings, source: str) -> None:
    """Refuse a number outside its range by file, field and value."""
    check_numbers(settings, source, "kubernetes", positive=("timeout_s", "lease_s"), not_negative=("settle_s",))
