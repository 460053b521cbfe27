"""The alert rules: the condition of each, its meaning, and the response. A new rule is a row of RULES."""

from dataclasses import dataclass
from typing import Literal

from powerhall.store import Filter, Query, Select
from powerhall.store.schema import MEASUREMENTS

__all__ = ["RULES", "Rule"]

_ROUND_S = 300


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule: it looks at the last `look_back_s`, reduces each series to one number and compares it.

    With two queries the number is the second's less the first's. `panel` is the panel of `board` that shows the
    number. `silence` is the state without any data, `also` another name by which readers look for it on the page of
    alerts. `quiet_buckets` makes the number the mean of that many newest buckets, empty ones counted as 0, so that a
    site that has gone quiet is a series of zeros and not an absent one.
    """

    uid: str
    title: str
    means: str
    do: str
    severity: Literal["warning", "critical"]
    queries: tuple[Query, ...]
    compare: Literal["gt", "lt", "outside_range"]
    limits: tuple[float, ...]
    board: str
    panel: str
    reduce: Literal["last", "max", "sum", "mean"] = "last"
    look_back_s: int = 120
    for_s: int = 60
    silence: Literal["OK", "Alerting"] = "OK"
    also: str = ""
    quiet_buckets: int = 0


def _bucketed(
    measurement: str, aggregate: str, field: str, *, per: str = "", scale: float = 1.0, every_s: float = 10.0
) -> Query:
    entry = MEASUREMENTS[measurement]
    group = tuple(tag for tag in ("site", "hall", "rack", "node") if tag in entry.tags)
    return Query(measurement, (Select(field, aggregate, "value", per=per, scale=scale),), {}, group, every_s=every_s)


def _whole(measurement: str, aggregate: str, field: str) -> Query:
    """Return one number per series over the whole range."""
    return Query(measurement, (Select(field, aggregate, "value"),), {}, MEASUREMENTS[measurement].tags)


def _zone_rules(level: str, measurement: str, board: str, panel: str) -> tuple[Rule, Rule]:
    share = _bucketed(measurement, "mean", "headroom_w", per="budget_w", scale=100.0)
    return (
        Rule(
            f"powerhall-{level}-near-budget",
            f"{level.capitalize()} above 95 % of its power budget",
            f"A {level} draws more than 95 % of its budget for a minute. It is still within it.",
            "Look at planned against actual power. If actual is above plan, find the racks that draw more than "
            "planned; if the plan itself is that close, expect the next round to lower caps.",
            "warning",
            (share,),
            "lt",
            (5.0,),
            board,
            panel,
        ),
        Rule(
            f"powerhall-{level}-over-budget",
            f"{level.capitalize()} over its power budget",
            f"A {level} draws more than its budget. Breakers and contracts are at risk.",
            "Check that leases are in force and cappers answer (Health). Lower the safe caps of the racks on top of "
            "the list, or stop jobs there; then find out why the plan did not hold.",
            "critical",
            (share,),
            "lt",
            (0.0,),
            board,
            panel,
            for_s=30,
        ),
    )


def _plan(aggregate: str, field: str, name: str = "value") -> Query:
    return Query("plan", (Select(field, aggregate, name),), {}, ("site",), every_s=float(_ROUND_S))


def _granted(aggregate: str, field: str) -> Query:
    return Query("lease_round", (Select(field, aggregate, "value"),), {}, ("site",), every_s=float(_ROUND_S))


RULES: tuple[Rule, ...] = (
    *_zone_rules("site", "site_10s", "powerhall-site", "Power against budget"),
    *_zone_rules("hall", "hall_10s", "powerhall-hall", "IT power against budget"),
    *_zone_rules("rack", "rack_10s", "powerhall-hall", "Racks with the most power"),
    Rule(
        "powerhall-cooling-low",
        "Cooling headroom low",
        "A hall gives off more than 95 % of the heat that its plants can take up in this weather, to liquid or to air.",
        "Check which medium is full and its plants (Cooling), and the forecast of the wet bulb. If it keeps rising, "
        "let the optimizer lower the hall's power, or bring standby plant in.",
        "warning",
        (_bucketed("hall_10s", "mean", "cooling_load_percent"),),
        "gt",
        (95.0,),
        "powerhall-cooling",
        "Heat against capacity",
        for_s=120,
    ),
    Rule(
        "powerhall-thermal-slowdown",
        "GPU slowed down by heat",
        "A GPU of this node had its clocks held down by a thermal slowdown.",
        "Check the node's inlet or coolant temperature and its neighbours. One GPU alone points to its cold plate or "
        "paste, all of them to the supply.",
        "warning",
        (_whole("gpu", "spread", "slow_thermal_s"),),
        "gt",
        (0.0,),
        "powerhall-node",
        "Held down by power or heat",
        reduce="max",
    ),
    Rule(
        "powerhall-fatal-xid",
        "Fatal XID error",
        "The driver reported an XID error of a fatal kind on this node.",
        "Drain the node, collect the driver's bug report, reset the GPU or reboot as the event's detail says.",
        "critical",
        (
            Query(
                "event",
                (Select("code", "count", "value"),),
                {"kind": "xid"},
                ("site", "hall", "node"),
                every_s=60.0,
                filters=(Filter("severity", ">=", 2.0),),
            ),
        ),
        "gt",
        (0.0,),
        "powerhall-health",
        "Errors of GPUs",
        reduce="sum",
        look_back_s=600,
        for_s=0,
    ),
    Rule(
        "powerhall-leak",
        "Leak at a node",
        "A leak detector of this node warns or has found coolant.",
        "Look at the node and its manifold now. Where coolant runs: close its valves, drain the node, cut its power.",
        "critical",
        (_whole("node", "max", "leak_state"),),
        "gt",
        (0.0,),
        "powerhall-health",
        "Errors of GPUs",
        reduce="max",
        for_s=0,
    ),
    Rule(
        "powerhall-leak-unit",
        "Leak at a cooling unit",
        "A leak detector of this cooling unit or power shelf warns or has found coolant.",
        "Look at the unit now. Where coolant runs: close its valves, and lower the power of the hall that it cools.",
        "critical",
        (
            Query(
                "facility",
                (Select("value", "max", "value"),),
                {"point": "leak_state"},
                MEASUREMENTS["facility"].tags,
            ),
        ),
        "gt",
        (0.0,),
        "powerhall-cooling",
        "Meters of the building",
        reduce="max",
        for_s=0,
    ),
    Rule(
        "powerhall-gpu-lost",
        "GPU lost",
        "At least one GPU of this hall does not answer its driver any more.",
        "Find it under Health; its jobs are dead or stuck. Reset or reboot, then return the node.",
        "critical",
        (_bucketed("hall_10s", "last", "gpus_lost"),),
        "gt",
        (0.0,),
        "powerhall-health",
        "GPUs that do not answer",
    ),
    Rule(
        "powerhall-stale-agent",
        "Nodes without fresh telemetry",
        "Nodes of this hall have sent nothing lately; they count at their worst case, which costs headroom.",
        "Check the agents of the stale nodes, the network to the store, and the store's own health.",
        "warning",
        (_bucketed("hall_10s", "last", "nodes_stale"),),
        "gt",
        (0.0,),
        "powerhall-health",
        "Agents",
        for_s=120,
    ),
    Rule(
        "powerhall-spool-growing",
        "Agent's spool grows",
        "An agent has kept more than 1 MB more on disk over ten minutes: it samples faster than the store takes.",
        "Check the store's load and the agent's retries. Nothing is lost until the spool is full.",
        "warning",
        (
            _whole("agent", "first", "spool_bytes"),
            _whole("agent", "last", "spool_bytes"),
        ),
        "gt",
        (1e6,),
        "powerhall-health",
        "Spools",
        look_back_s=600,
        for_s=120,
    ),
    Rule(
        "powerhall-plan-old",
        "Plan older than two rounds",
        "A site that had a plan in the last two days got none for more than two rounds, at most three, or no site has "
        "one. Leases will expire and nodes fall back to their safe caps.",
        "Check the optimizer's timer and its last log line; run one round by hand.",
        "critical",
        (_plan("count", "value"),),
        "lt",
        (0.1,),
        "powerhall-optimizer",
        "Plan age",
        look_back_s=2 * 86_400,
        for_s=0,
        silence="Alerting",
        also="stale plan",
        quiet_buckets=3,
    ),
    Rule(
        "powerhall-capper-alarm",
        "Capper needs a person",
        "The capper of this node reports a GPU that does not answer, a damaged or lost memory, a missing key, a clock "
        "that was set or a lease that it refused, or it does not answer its carrier. Safe caps hold as far as they can "
        "be set.",
        "Read reason and detail of the node under Cappers (Health), and the journal of powerhall-capper. A GPU that "
        "does not answer may draw what it was last allowed. See the guide, What the capper does and does not do.",
        "critical",
        (Query("capper", (Select("alarms", "last", "value"),), {}, ("node",), every_s=10.0),),
        "gt",
        (0.0,),
        "powerhall-health",
        "Cappers",
        look_back_s=180,
        for_s=60,
    ),
    Rule(
        "powerhall-lease-clock",
        "Planner's clock disagrees",
        "The planner's clock differs by more than 3 s from the store's, the last grant's or the nodes'. Leases are "
        "granted only as far as they are valid by both; where there is no such time, nothing is granted.",
        "Compare `date -u` on the planner, the store and a node; mend the time service of the one that is off. The "
        "line `lease_clock` in the granter's log says which. Nodes fall back to their safe caps when leases run out.",
        "critical",
        (_granted("last", "clock_ahead_s"),),
        "outside_range",
        (-3.0, 3.0),
        "powerhall-optimizer",
        "Leases of the newest rounds",
        look_back_s=2 * _ROUND_S,
        for_s=0,
    ),
    Rule(
        "powerhall-lease-ledger",
        "Lease ledger lost or doubted",
        "The ledger of leases was lost, damaged or too old. Every node counts at its highest power until it confirms a "
        "new lease, or until the old ones have run out.",
        "Read the line `lease_ledger` in the granter's log. Keep the damaged copy that lies beside the ledger, and "
        "look at the disk. See the guide, What to back up.",
        "warning",
        (_granted("max", "unknown"),),
        "gt",
        (0.0,),
        "powerhall-optimizer",
        "Leases of the newest rounds",
        look_back_s=2 * _ROUND_S,
        for_s=0,
    ),
    Rule(
        "powerhall-leases-silent",
        "Leases do not reach their nodes",
        "Nodes have not confirmed a lease that was granted two minutes ago or earlier: the carrier or the capper there "
        "is dead or refuses it, or the node does not reach the store. Their safe caps hold, or will when the lease "
        "that they have runs out; the budget of both leases is kept for them until then.",
        "The note of the last `lease` names the nodes. There, look at powerhall-lease (the carrier) and "
        "powerhall-capper: `systemctl status`, then their journals; then at the way to the store.",
        "warning",
        (_granted("last", "silent"),),
        "gt",
        (0.0,),
        "powerhall-optimizer",
        "Leases of the newest rounds",
        look_back_s=2 * _ROUND_S,
        for_s=0,
        also="dead carrier",
    ),
    Rule(
        "powerhall-plan-unverified",
        "Plan not verified",
        "The newest plan did not pass the independent checker; the repaired previous one is in force.",
        "Run `powerhall-optimizer verify` on the plan: it names the limit that is broken.",
        "critical",
        (_plan("last", "verified"),),
        "lt",
        (1.0,),
        "powerhall-optimizer",
        "Newest plans",
        look_back_s=2 * _ROUND_S,
        for_s=0,
    ),
    Rule(
        "powerhall-telemetry-closure",
        "Energy counter and power samples disagree",
        "On this node the GPUs' energy counters and the integral of their power samples differ by more than 5 %.",
        "Distrust this node's power until it is explained: driver, sampling gaps, or a sensor's scope.",
        "warning",
        (_bucketed("gpu_slow", "mean", "energy_closure", every_s=60.0),),
        "outside_range",
        (-0.05, 0.05),
        "powerhall-node",
        "Memory errors and settings",
        reduce="mean",
        look_back_s=600,
        for_s=300,
    ),
)
