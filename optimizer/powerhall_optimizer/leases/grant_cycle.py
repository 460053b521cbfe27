"""One grant cycle: acknowledgements into the ledger, caps for the plan out of it, leases into the store."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.curtailment import Event
from powerhall.store import Store
from powerhall.timeseries import Series
from powerhall_optimizer.leases import texts
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.budget import Budget
from powerhall_optimizer.leases.budgets import horizon_end_s, lease_budgets
from powerhall_optimizer.leases.caps import cap_requests, grant_leases
from powerhall_optimizer.leases.event_limits import with_event_limits
from powerhall_optimizer.leases.lease_points import publish_leases
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.leases.spans import LONGEST_LEASE_S

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
    confirmed: dict[str, int] = field(default_factory=dict)
    """The newest confirmed number of each node."""
    silent: set[str] = field(default_factory=set)
    """Nodes that did not confirm leases of before; a second run renews the leases that tell it."""

    def acknowledge(self, now_s: float) -> int:
        """Record acknowledgements in the ledger; return how many older leases it drops."""
        if self.store is None:
            return 0
        self.confirmed = read_acks(self.store, self.site_key, self.ledger.safe_caps_w, now_s).sequences
        return self.ledger.acknowledge(self.confirmed, now_s)

    def run(self, now_s: float, until_s: float) -> dict[str, object]:
        """Grant and publish until `until_s`, or as long as the plan knows its budgets; return the figures.

        A plan that ends now raises Rejected. `notes` are lines for people.
        """
        self.acknowledge(now_s)
        notes = []
        if self.store is not None:
            self.silent |= self.ledger.silent(self.confirmed, now_s)
        if self.silent:
            notes.append(texts.silent_nodes(sorted(self.silent)))
        end_s, why = self._end_s(now_s, until_s)
        if end_s < until_s:
            notes.append(texts.shortened(end_s, why))
        everybody = cap_requests(self.plan, now_s, end_s)
        wanted = [request for request in everybody if request.node not in self.served]
        budgets, refused = self._budgets(now_s, end_s)
        if refused is not None:
            notes.append(texts.only_lowered(refused))
        leases = grant_leases(
            self.plan,
            wanted,
            self.ledger,
            budgets,
            site_key=self.site_key,
            now_s=now_s,
            until_s=end_s,
            must_fit=refused is None,
        )
        if self.store is not None:
            publish_leases(self.store, self.plan.snapshot.site, leases)
        caps_w = {lease.node: lease.node_cap_w for lease, _ in leases}
        self.served |= {request.node for request in wanted if caps_w.get(request.node, 0.0) >= request.cap_w}
        if unknown := self.ledger.unknown(now_s):
            notes.append(texts.unknown_nodes(len(unknown), self.ledger.state.unknown_until_s))
        short = len(everybody) - len(self.served)
        if unconfirmed := self.ledger.unconfirmed():
            notes.append(texts.unconfirmed_nodes(sorted(unconfirmed), short))
        figures: dict[str, object] = {"plan_id": self.plan.plan_id, "nodes": len(everybody), "leases": len(leases)}
        figures |= {"short": short, "expires_s": end_s, "cap_w": sum(caps_w.values())}
        figures |= {"ended_early": sum(lease.expires_s < end_s for lease, _ in leases), "unknown": len(unknown)}
        figures |= {"unconfirmed": len(unconfirmed), "silent": len(self.silent)}
        return figures | ({"note": "; ".join(notes)} if notes else {})

    def _end_s(self, now_s: float, until_s: float) -> tuple[float, str]:
        """Return the latest end of a lease, and what sets it; clocks that differ must not carry one further."""
        known_s = horizon_end_s(self.plan) - self.ledger.clock_skew_s
        if known_s <= now_s:
            allowed = "the plan ends now; run a round first"
            raise Rejected.field("plan", "horizon", horizon_end_s(self.plan), allowed)
        ends = [(until_s, ""), (known_s, "the plan ends then"), (now_s + LONGEST_LEASE_S, "the longest lease")]
        return min(ends)

    def _budgets(self, now_s: float, end_s: float) -> tuple[list[Budget], Rejected | None]:
        """Return the budgets, those of events included, and the refusal where one leaves less than safe caps for now.

        A budget that is below the safe caps at its best raises Rejected: nothing could ever keep it.
        """
        counted_s = end_s + self.ledger.clock_skew_s
        narrow = msgspec.structs.replace(self.plan, snapshot=with_event_limits(self.plan.snapshot, self.events))
        budgets = lease_budgets(narrow, now_s, counted_s)
        try:
            self.ledger.check(budgets)
        except Rejected as error:
            self.ledger.check(lease_budgets(_at_its_best(self.plan), now_s, counted_s))
            return budgets, error
        return budgets, None


def _at_its_best(plan: Plan) -> Plan:
    """Return the plan with every budget at its highest for good."""
    site = plan.snapshot.site
    budgets = {zone: Series((0.0,), (max(series.values),)) for zone, series in site.budgets.items()}
    snapshot = msgspec.structs.replace(plan.snapshot, site=msgspec.structs.replace(site, budgets=budgets))
    return msgspec.structs.replace(plan, snapshot=snapshot)
