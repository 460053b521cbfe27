"""The table [kubernetes] of the scheduler settings."""

import msgspec

from powerhall_optimizer.schedulers.base import check_numbers
from powerhall_optimizer.schedulers.job_fields import JobFields

__all__ = ["KubernetesSettings", "check_settings"]


class KubernetesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a plan is written into Kubernetes; see docs/guide/kubernetes.md."""

    server: str = ""
    """URL of the API server; empty uses the pod's service account or the kubeconfig."""
    token_file: str = ""
    """File with a bearer token, for `server`."""
    ca_file: str = ""
    """Certificate authority, for `server`."""
    context: str = ""
    """Context of the kubeconfig; empty is its current one."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose jobs are managed; empty manages all."""
    selector: str = "powerhall.io/managed=true"
    """Label selector of managed jobs."""
    gpu_resource: str = "nvidia.com/gpu"
    """Resource name of a GPU."""
    tolerations: tuple[str, ...] = ("nvidia.com/gpu",)
    """Keys of taints that managed jobs tolerate; a node with another taint takes nothing new."""
    hall_label: str = "powerhall.io/hall"
    """Key of the node label that names the hall of a node; see `node_type_label`."""
    node_type_label: str = "powerhall.io/node-type"
    """Key of the node label that names the type of a node, for halls with several."""
    queues: dict[str, str] = {}
    """Kueue LocalQueue by hall; a job of a hall that is not listed is started without Kueue."""
    cluster_queue: str = ""
    """ClusterQueue whose quota of `watts_resource` follows the budget of `zone`; empty changes none."""
    watts_per_gpu: float = 1275.0
    """Watts that Kueue counts for a GPU (its `resources.transformations`); 0: the power of the planned modes."""
    watts_resource: str = "powerhall.io/watts"
    """Resource that counts power in W."""
    kueue_version: str = ""
    """API version of Kueue; empty is the one that the cluster prefers."""
    zone: str = ""
    """Zone whose budget becomes the quota; empty is the site."""
    lease_namespace: str = "powerhall"
    """Namespace of the leader lease."""
    lease_name: str = "powerhall-optimizer"
    """Name of the leader lease."""
    lease_s: int = 60
    """Length of the leader lease, in s."""
    round_s: float = 300.0
    """Time between two plans, in s; jobs that wait for a plan older than two of them are released (`--withdraw`)."""
    identity: str = ""
    """Name under which this process leads; empty is the host's, in a cluster the pod's."""
    grace_s: float = 45.0
    """Longest wait for the pods of stopped jobs to end, before others are started in their place, in s."""
    settle_s: float = 0.0
    """How long to watch after the writes for fields that another controller reverts, in s."""
    timeout_s: float = 30.0
    """Longest wait for one request, in s."""
    fields: JobFields = JobFields()
    """How Kubernetes' jobs become jobs of the plan."""


def check_settings(settings: KubernetesSettings, source: str) -> None:
    """Refuse a number outside its range by file, field and value."""
    check_numbers(
        settings,
        source,
        "kubernetes",
        positive=("timeout_s", "lease_s", "round_s"),
        not_negative=("grace_s", "settle_s", "watts_per_gpu"),
    )
