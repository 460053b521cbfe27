"""Cap leases over an unreliable network: rounds over budget with the ledger and with naive planning, same losses.

In each round every node requests a random cap. Leases are lost, delayed (and so overtaken) and repeated, and nodes are
cut off for many rounds; nodes obey the capper's rules (no older sequence, safe cap when a lease runs out). Naive
planning scales the requested caps so that the new caps fit the budget; the ledger grants against the caps that nodes
may still hold. With confirmations, nodes also report the cap they hold, over the same network: lost, late, repeated,
overtaken, and never from a node that is cut off. The second grant gives the power confirmed in the same round to nodes
that got too little, as `lease --settle` does. Powers are checked every round after delivery.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from powerhall_optimizer.leases.ledger import Budget, Ledger

NODES, BUDGET_W, SAFE_W, MAX_W = 20, 10_000, 300, 1_000
ROUND_S, LEASE_S = 10.0, 35.0
LOSS, DELAY, REPEAT, CUT, CUT_ROUNDS = 0.15, 0.15, 0.10, 0.002, 30


@dataclass
class Node:
    """A simulated node that follows the capper's rules."""

    cap_w: int = SAFE_W
    sequence: int = 0
    expires_s: float = 0.0
    cut_until: int = 0

    def receive(self, sequence: int, cap_w: int, expires_s: float, now_s: float) -> None:
        if sequence > self.sequence and expires_s > now_s:
            self.sequence, self.cap_w, self.expires_s = sequence, cap_w, expires_s

    def power_w(self, now_s: float) -> int:
        return self.cap_w if self.expires_s > now_s else SAFE_W


@dataclass
class Network:
    """A network that loses, delays and repeats leases and cuts nodes off; one seed gives all rules the same losses."""

    rng: random.Random
    nodes: list[Node] = field(default_factory=lambda: [Node() for _ in range(NODES)])
    late: list[tuple[int, int, int, int, float]] = field(default_factory=list)  # round, node, sequence, cap, expiry
    late_words: list[tuple[int, int, int]] = field(default_factory=list)  # round, node, sequence

    def send(self, now_round: int, leases: list[tuple[int, int, int, float]]) -> None:
        now_s = now_round * ROUND_S
        for node, sequence, cap, expires_s in leases:
            if self.rng.random() < CUT:
                self.nodes[node].cut_until = now_round + CUT_ROUNDS
            lost, delayed, repeated = (self.rng.random() < p for p in (LOSS, DELAY, REPEAT))
            wait = self.rng.randint(1, 3)
            if delayed or repeated:
                self.late.append((now_round + wait, node, sequence, cap, expires_s))
            if not lost and not delayed and self.nodes[node].cut_until <= now_round:
                self.nodes[node].receive(sequence, cap, expires_s, now_s)
        due = [m for m in self.late if m[0] <= now_round]
        self.late = [m for m in self.late if m[0] > now_round]
        for _, node, sequence, cap, expires_s in due:
            if self.nodes[node].cut_until <= now_round:
                self.nodes[node].receive(sequence, cap, expires_s, now_s)

    def confirm(self, now_round: int, words: random.Random, ledger: Ledger, names: tuple[str, ...]) -> None:
        """Every node confirms its cap; confirmations that arrive free budget. `words` is a generator of its own."""
        for number, node in enumerate(self.nodes):
            lost, delayed, repeated = (words.random() < p for p in (LOSS, DELAY, REPEAT))
            wait = words.randint(1, 3)
            if not node.sequence or node.cut_until > now_round:
                continue
            if delayed or repeated:
                self.late_words.append((now_round + wait, number, node.sequence))
            if not lost and not delayed:
                ledger.acknowledge({names[number]: node.sequence}, now_round * ROUND_S)
        due = [word for word in self.late_words if word[0] <= now_round]
        self.late_words = [word for word in self.late_words if word[0] > now_round]
        for _, number, sequence in due:
            ledger.acknowledge({names[number]: sequence}, now_round * ROUND_S)

    def total_w(self, now_round: int) -> int:
        return sum(node.power_w(now_round * ROUND_S) for node in self.nodes)


def wanted(rng: random.Random) -> list[int]:
    """Draw caps anew for every round, the hardest case for leases."""
    return [rng.randint(SAFE_W, MAX_W) for _ in range(NODES)]


def naive(want: list[int]) -> list[int]:
    """Scale the part above the safe cap so that the new caps alone fit the budget."""
    room, extra = BUDGET_W - SAFE_W * NODES, sum(w - SAFE_W for w in want)
    share = min(1.0, room / extra) if extra else 0.0
    return [SAFE_W + int((w - SAFE_W) * share) for w in want]


def run(rounds: int, seed: int, rule: str) -> dict[str, float]:
    """Play the rounds under one rule: `ledger`, `confirmed`, `settled` (confirmed, and a second grant) or `naive`."""
    rng, network, words = random.Random(seed), Network(random.Random(seed + 1)), random.Random(seed + 2)
    names = tuple(f"n{i}" for i in range(NODES))
    budgets = [Budget("site", BUDGET_W, names)]
    ledger = Ledger(dict.fromkeys(names, SAFE_W))
    over = worst = used = 0
    for number in range(1, rounds + 1):
        caps, expires_s = naive(wanted(rng)), number * ROUND_S + LEASE_S
        if rule != "naive":
            grants = ledger.grant(dict(zip(names, caps, strict=True)), budgets, number * ROUND_S, expires_s)
            leases = [(i, grants[n].sequence, grants[n].cap_w, expires_s) for i, n in enumerate(names)]
        else:
            leases = [(i, number, caps[i], expires_s) for i in range(NODES)]
        network.send(number, leases)
        if rule in ("confirmed", "settled"):
            network.confirm(number, words, ledger, names)
        if rule == "settled":
            short = {n: cap for n, cap in zip(names, caps, strict=True) if grants[n].cap_w < cap}
            more = ledger.grant(short, budgets, number * ROUND_S, expires_s)
            again = [(i, more[n].sequence, more[n].cap_w, expires_s) for i, n in enumerate(names) if n in more]
            network.send(number, again)
        total = network.total_w(number)
        over += total > BUDGET_W
        worst = max(worst, total - BUDGET_W)
        used += total
    return {"over": over, "worst_w": worst, "use": used / rounds / BUDGET_W}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="2,000 rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rounds = 2_000 if args.quick else args.rounds
    begin = time.perf_counter()
    rules = ("ledger", "confirmed", "settled", "naive")
    ledger, told, settled, plain = (run(rounds, args.seed, rule) for rule in rules)
    seconds = time.perf_counter() - begin
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    print(f"{NODES} nodes, {BUDGET_W} W, loss {LOSS:.0%}, delay {DELAY:.0%}, repeats {REPEAT:.0%}, cuts {CUT_ROUNDS}")
    print(f"{rounds} rounds, seed {args.seed}, {machine}, {seconds:.1f} s\n")
    print(f"{'rule':<24}{'rounds over':>14}{'share':>9}{'worst excess':>15}{'mean use':>10}")
    labels = ("ledger", "with confirmations", "and a second grant", "naive")
    for name, row in zip(labels, (ledger, told, settled, plain), strict=True):
        print(
            f"{name:<24}{row['over']:>14}{row['over'] / rounds:>9.2%}{max(0, row['worst_w']):>13} W{row['use']:>10.1%}"
        )
    if args.json:
        figures = {
            "rounds": rounds,
            "seed": args.seed,
            "over_budget": ledger["over"],
            "over_budget_with_confirmations": told["over"],
            "over_budget_with_second_grant": settled["over"],
            "naive_over_budget": plain["over"],
            "naive_worst_excess_w": plain["worst_w"],
            "budget_use_mean": ledger["use"],
            "budget_use_mean_with_confirmations": told["use"],
            "budget_use_mean_with_second_grant": settled["use"],
            "naive_budget_use_mean": plain["use"],
        }
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
