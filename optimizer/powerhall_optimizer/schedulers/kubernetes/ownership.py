"""Whose a job is: what Powerhall wrote last, and whether somebody else changed it since.

The annotation `powerhall.io/wrote` has the values that Powerhall wrote last. Where the job has others now, somebody
else changed it, and Powerhall neither writes nor plans it until that annotation is removed.
"""

from powerhall_optimizer.schedulers.kubernetes.objects import Object, notes_of, part

__all__ = ["QUEUE_LABEL", "was_changed", "wrote"]

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def wrote(raw: Object) -> str:
    """Return the values of a job that Powerhall writes, as the annotation has them."""
    spec, labels = part(raw, "spec"), part(raw, "metadata", "labels")
    return f"suspend={'true' if spec.get('suspend') else 'false'};queue={labels.get(QUEUE_LABEL, '')}"


def was_changed(raw: Object) -> bool:
    """Return whether somebody else set suspend or the queue since Powerhall did.

    In a Kueue queue only the queue counts: Kueue itself suspends and unsuspends the job.
    """
    last, now = notes_of(raw).get("wrote", ""), wrote(raw)
    if not last or last == now:
        return False
    queue = last.partition(";queue=")[2]
    return not queue or queue != now.partition(";queue=")[2]
