"""First come, first served: jobs start in order of submission at full power.

The first job that does not fit holds back all later ones. One that would not fit even if nothing else ran waits for
other budgets or weather, and holds back nobody.
"""

from powerhall_twin.engine.queue_passes import STRICT_ORDER
from powerhall_twin.policies.policy import PolicyKind
from powerhall_twin.policies.queue_policy import QueuePolicy

__all__ = ["FCFS"]

FCFS = PolicyKind("fcfs", "first come, first served", lambda _: QueuePolicy(STRICT_ORDER))
