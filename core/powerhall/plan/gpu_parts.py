"""How the share of a GPU that a job asks for fits the equal parts that a node type's GPUs have."""

from fractions import Fraction

from powerhall.jobs.gpu_share import parse_share
from powerhall.jobs.model import Job
from powerhall.site.topology import NodeType

__all__ = ["gpu_parts", "gpus_counted", "gpus_text", "offers", "share_of"]


def share_of(job: Job) -> Fraction | None:
    """Return the share of one GPU that a job asks for; None for a job of whole GPUs."""
    return None if job.gpu_share is None else parse_share(job.gpu_share)


def gpus_counted(job: Job) -> float:
    """Return the GPUs by which a job's value and energy are counted: of a part of one its share."""
    share = share_of(job)
    return float(job.gpus) if share is None else float(share)


def gpu_parts(share: Fraction, kind: NodeType) -> int:
    """Return how many of the equal parts of one GPU a share takes, rounded up."""
    return -(-share.numerator * kind.gpu_parts // share.denominator)


def offers(kind: NodeType, job: Job) -> bool:
    """Whether a node type has what a job asks for: parts of GPUs, or whole ones.

    GPUs that are split into MIG instances have no whole one to give, and a job takes one instance of them. A share of 1
    stands for all that jobs share on one GPU.
    """
    share = share_of(job)
    if share is None:
        return not kind.mig
    return kind.gpu_parts > 1 and (not kind.mig or share == 1 or gpu_parts(share, kind) == 1)


def gpus_text(job: Job) -> str:
    """Write what a job asks for: "8 GPUs", "1/7 of a GPU"."""
    if job.gpu_share is not None:
        return f"{job.gpu_share} of a GPU"
    return "1 GPU" if job.gpus == 1 else f"{job.gpus} GPUs"
