"""EASY backfilling at full power: later jobs may pass the head of the queue where they do not delay its reservation.

The reservation is of nodes and of power: the head starts once enough runs have ended for its GPUs and for every budget
and cooling capacity as they are now. A job that ends later may pass only on nodes and power that the head leaves.
Source: Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995.
"""

from powerhall_twin.engine.queue_passes import EASY_ORDER
from powerhall_twin.policies.policy import PolicyKind
from powerhall_twin.policies.queue_policy import QueuePolicy

__all__ = ["EASY"]

EASY = PolicyKind("easy", "EASY backfilling", lambda _: QueuePolicy(EASY_ORDER))
