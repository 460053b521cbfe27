"""Settings of the workload managers: one optional TOML file with a table for each."""

from pathlib import Path
from typing import Literal

import msgspec

from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_toml

__all__ = ["FileSettings", "JobFields", "KubernetesSettings", "SchedulerSettings", "SlurmSettings", "read_settings"]


class JobFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How what a workload manager knows of a job becomes what the planner wants to know.

    `weights`, `preemptible` and `node_types` are looked up by queue (partition, Kueue queue), quality of service or
    GPU type; what is not listed has weight 1, is not preemptible and may run on any node type.
    """

    weights: dict[str, float] = {}
    preemptible: tuple[str, ...] = ()
    node_types: dict[str, str] = {}
    checkpoint_cost_s: float = 0.0
    default_duration_s: float = 86400.0


class SlurmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a plan is written into Slurm; see docs/slurm.md.

    `hold`: jobs that must wait get a StartTime that expires by itself ("lease"), or a real hold ("hold").
    `lease_s`: how long such a StartTime reaches ahead; it is renewed when half of it is over.
    `pin`: how the planned nodes are requested. `licence` ("" for none): the licence that counts power, in `licence_w`.
    `zone` ("" for the site): whose budget becomes licence reservations. `level_dir`: where nodes read a job's power
    level. `preempt`: requeue jobs that the plan stops. `power_save_s`: nodes without planned work for this long are
    powered down (0: never).
    """

    hold: Literal["lease", "hold"] = "lease"
    lease_s: float = 1800.0
    pin: Literal["nodes", "features", "none"] = "nodes"
    top_priority: int = 4_294_967_000
    licence: str = "kw"
    licence_w: float = 1000.0
    zone: str = ""
    level_dir: str = ""
    preempt: bool = False
    power_save_s: float = 0.0
    resume_lead_s: float = 300.0
    timeout_s: float = 30.0
    fields: JobFields = JobFields()


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


class FileSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where jobs come from and orders go to; the ending says CSV or JSON."""

    jobs: str = "jobs.csv"
    orders: str = "orders.csv"
    down_nodes: tuple[str, ...] = ()


class SchedulerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    slurm: SlurmSettings = SlurmSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    file: FileSettings = FileSettings()


_POSITIVE = ("slurm.lease_s", "slurm.licence_w", "slurm.timeout_s", "kubernetes.timeout_s", "kubernetes.lease_s")
_NOT_NEGATIVE = ("slurm.power_save_s", "slurm.resume_lead_s", "kubernetes.settle_s")


def read_settings(path: Path | None) -> SchedulerSettings:
    """Read the settings, or the defaults without a file; a wrong one is refused by file, field and value."""
    if path is None:
        return SchedulerSettings()
    settings = read_toml(path, SchedulerSettings)
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        table, _, field = name.partition(".")
        value = getattr(getattr(settings, table), field)
        if value < 0 or (value == 0 and name in _POSITIVE):
            allowed = "must be above 0" if name in _POSITIVE else "must not be negative"
            raise Rejected.field(str(path), name, value, allowed)
    if not 1_000_000 <= settings.slurm.top_priority <= 4_294_967_293:
        allowed = "must be from 1000000 to 4294967293"
        raise Rejected.field(str(path), "slurm.top_priority", settings.slurm.top_priority, allowed)
    return settings
