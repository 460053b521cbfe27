"""Kubernetes and Kueue, through the official client."""

from powerhall.site.topology import Site
from powerhall_optimizer.schedulers.base import PlanWriter, QueueReader, Scheduler
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings, check_settings

__all__ = ["SCHEDULER"]


def _reader(settings: KubernetesSettings, site: Site | None) -> QueueReader:
    from powerhall_optimizer.schedulers.kubernetes.reader import KubernetesReader

    assert site is not None
    return KubernetesReader(site, settings)


def _writer(settings: KubernetesSettings) -> PlanWriter:
    from powerhall_optimizer.schedulers.kubernetes.writer import KubernetesWriter

    return KubernetesWriter(settings)


SCHEDULER = Scheduler(
    name="kubernetes",
    settings=KubernetesSettings,
    needs_site=True,
    reader=_reader,
    writer=_writer,
    check=check_settings,
)
