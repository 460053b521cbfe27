"""One grant cycle: acknowledgements into the ledger, caps for the plan out of it, leases into the store."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.curtailment import Event
from powerhall.store import Store
from powerhall_optimizer.leases import texts
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.budgets import lease_budgets
from powerhall_optimizer.leases.caps import cap_requests, grant_leases
from powerhall_optimizer.leases.event_limits import with_event_limits
from powerhall_optimizer.leases.lease_points import publish_leases
from powerhall_optimizer.leases.ledger import Budget, Ledger

__all__ = ["GrantCycle"]


@dataclass(slots=True)
class GrantCycle:
    """Grants and publishes leases of a plan; without a store it only computes the figures."""

    plan: Plan
    ledger: Ledger
    site_key: bytes
    store: Store | None
    events: Sequence[Event] = ()
    served: set[str] = field(default_factory=set)
    """Nodes that got their whole request: a second run leaves them out."""

    def acknowledge(self, now_s: float) -> int:
        """Record acknowledgements in the ledger; return how many older leases it drops."""
        if self.store is None:
            return 0
        acks = read_acks(self.store, self.site_key, self.ledger.safe_caps_w, now_s)
        return self.ledger.acknowledge(acks.sequences, now_s)

    def run(self, now_s: float, until_s: float) -> dict[str, object]:
        """Grant and publish; return the figures of the cycle."""
        self.acknowledge(now_s)
        everybody = cap_requests(self.plan, now_s, until_s)
        wanted = [request for request in everybody if request.node not in self.served]
        budgets, refused = self._budgets(now_s, until_s)
        leases = grant_leases(
            self.plan, wanted, self.ledger, budgets, site_key=self.site_key, now_s=now_s, until_s=until_s
        )
        if self.store is not None:
            publish_leases(self.store, self.plan.snapshot.site, leases)
        caps_w = {lease.node: lease.node_cap_w for lease, _ in leases}
        self.served |= {request.node for request in wanted if caps_w.get(request.node, 0.0) >= request.cap_w}
        figures: dict[str, object] = {"plan_id": self.plan.plan_id, "nodes": len(everybody), "leases": len(leases)}
        figures |= {"short": len(everybody) - len(self.served), "expires_s": until_s, "cap_w": sum(caps_w.values())}
        return figures | ({} if refused is None else {"note": texts.only_lowered(refused)})

    def _budgets(self, now_s: float, until_s: float) -> tuple[list[Budget] | None, Rejected | None]:
        """Return the budgets, those of events included; None, and the refusal, where only lowering is left."""
        narrow = msgspec.structs.replace(self.plan, snapshot=with_event_limits(self.plan.snapshot, self.events))
        budgets = lease_budgets(narrow, now_s, until_s)
        try:
            self.ledger.check(budgets)
        except Rejected as error:
            if not self.events:
                raise
            self.ledger.check(lease_budgets(self.plan, now_s, until_s))
            return None, error
        return budgets, None
