"""Blocks of Kubernetes Jobs: Powerhall's annotations, and those of Kueue by the label of a level."""

import pytest

from powerhall.site.topology import Block, BlockLevel, Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall_optimizer.schedulers.kubernetes.jobs import to_job
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.skip_reasons import LeftOut

KIND = NodeType("gb", "X", 4, 1000.0, 6000.0, 1000.0, 0.0, (Mode("full", "power_limit", 1500.0, 1.0),))
RACK = Rack("h/r/k", "gb", ("n1", "n2", "n3", "n4"))
LEVEL = BlockLevel("nvlink_domain", (Block("d0", "n[1-4]"),), "nvidia.com/gpu.clique")
SITE = Site("s1", (Hall("h", (RackRow("h/r", (RACK,)),), (), Losses()),), {"gb": KIND}, levels=(LEVEL,))
KUEUE = "kueue.x-k8s.io/podset-"


def job_of(own=None, pods=None, parallelism=8, gpus=1):
    containers = [{"resources": {"limits": {"nvidia.com/gpu": gpus}}}]
    return to_job(
        {
            "metadata": {"namespace": "a", "name": "j", "annotations": own or {}},
            "spec": {
                "suspend": True,
                "parallelism": parallelism,
                "template": {"metadata": {"annotations": pods or {}}, "spec": {"containers": containers}},
            },
        },
        SITE,
        KubernetesSettings(),
        now_s=0.0,
    )


@pytest.mark.parametrize(
    ("own", "pods", "expected"),
    [
        ({}, {}, (None, None)),
        ({"powerhall.io/within": "rack"}, {f"{KUEUE}required-topology": "x"}, ("rack", None)),
        ({"powerhall.io/within": "rack", "powerhall.io/block-nodes": "2"}, {}, ("rack", 2)),
        ({}, {f"{KUEUE}required-topology": "nvidia.com/gpu.clique"}, ("nvlink_domain", None)),
        ({}, {f"{KUEUE}preferred-topology": "nvidia.com/gpu.clique"}, (None, None)),
        ({}, {f"{KUEUE}required-topology": "kubernetes.io/hostname"}, (None, None)),
        ({}, {f"{KUEUE}required-topology": "other.io/pod"}, ("other.io/pod", None)),
        (
            {},
            {f"{KUEUE}slice-required-topology": "nvidia.com/gpu.clique", f"{KUEUE}slice-size": "4"},
            ("nvlink_domain", 1),
        ),
    ],
)
def test_annotations_become_blocks(own, pods, expected):
    job = job_of(own, pods)
    assert (job.within, job.block_nodes) == expected


@pytest.mark.parametrize("size", ["3", "x", ""])
def test_a_slice_that_fills_no_whole_nodes_is_left_out(size):
    pods = {f"{KUEUE}slice-required-topology": "nvidia.com/gpu.clique", f"{KUEUE}slice-size": size}
    assert isinstance(job_of({}, pods), LeftOut)
