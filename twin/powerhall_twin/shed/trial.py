"""The trial of an emergency shed: the optimizer's shed with leases, carriers and cappers on simulated GPUs.

The site runs a plan of the optimizer when the grid operator asks for a cut. The shed's real computing time passes in
the simulation too. Compliance is judged by the building's meter, not by the plan.
"""

import time

import msgspec

from powerhall.plan.plan import Plan
from powerhall.units import format_power
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.shed.meter import baseline_w
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_twin.shed.shed_site import ShedSettings, ShedSite, assembled, settle

__all__ = ["ShedTrial", "run_shed", "shed"]


class ShedTrial(msgspec.Struct, frozen=True):
    """Figures of a trial; powers at the meter in W.

    `compliant_s` is the time from the command until the meter stays within the target; None where it never does.
    """

    nodes: int
    jobs: int
    protected: int
    before_w: float
    target_w: float
    after_w: float
    compliant_s: float | None
    within_s: float
    over_after_deadline: int
    protected_touched: tuple[str, ...]
    samples: int
    outcome: Outcome

    @property
    def ok(self) -> bool:
        """Whether the cut held in time and no protected job was touched."""
        in_time = self.compliant_s is not None and self.compliant_s <= self.within_s
        return in_time and not self.over_after_deadline and not self.protected_touched

    def text(self) -> str:
        """Return the figures as text."""
        o = self.outcome
        when = "never" if self.compliant_s is None else f"after {self.compliant_s:.1f} s"
        touched = ", ".join(self.protected_touched) or "none touched"
        return (
            f"{self.nodes} nodes, {self.jobs} jobs, meter at {format_power(self.before_w)}, "
            f"target {format_power(self.target_w)}\n"
            f"{o.rungs} rungs: {o.lowered} jobs slowed, {o.paused} paused, {o.stopped} stopped\n"
            f"{o.leases} leases handed over in {o.seconds:.2f} s, {o.confirmed} confirmed\n"
            f"meter within the target {when} (deadline {self.within_s:g} s); {self.over_after_deadline} of "
            f"{self.samples} samples above it after the deadline; {format_power(self.after_w)} at the end\n"
            f"{self.protected} protected jobs: {touched}\n"
        )


def run_shed(settings: ShedSettings) -> ShedTrial:
    """Run the site, shed, and return the figures of the trial."""
    with assembled(settings) as twin:
        plan = settle(twin)
        return shed(twin, plan)


def shed(twin: ShedSite, plan: Plan, until_s: float | None = None) -> ShedTrial:
    """Shed a share of the metered power, observe for `after_s`, and return the figures."""
    s = twin.settings
    command_s, before_w, jobs = twin.now_s, twin.meter_w[-1], len(twin.runs)
    twin.clock_mark_s = time.perf_counter()
    steps = ladder(plan, twin.now_s)
    twin.watch(tuple(job_id for job_id in steps.protected if job_id in twin.runs))
    target_w = (1.0 - s.share) * min(before_w, baseline_w(twin.store, twin.site.name, steps.power_w, twin.now_s))
    outcome = twin.shedder().act(plan, steps, target_w, until_s=until_s, within_s=s.within_s)
    twin.clock_mark_s = 0.0
    twin.advance(max(0.0, command_s + s.after_s - twin.now_s))
    seen = [(at - command_s, power) for at, power in zip(twin.at_s, twin.meter_w, strict=True) if at > command_s]
    late = [at for at, power in seen if power > target_w + 1.0]
    compliant_s = next((at for at, _ in seen if not late or at > late[-1]), None)
    return ShedTrial(
        nodes=len(twin.measured.nodes.states),
        jobs=jobs,
        protected=len(twin.watched),
        before_w=before_w,
        target_w=target_w,
        after_w=seen[-1][1],
        compliant_s=compliant_s,
        within_s=s.within_s,
        over_after_deadline=sum(at > s.within_s for at in late),
        protected_touched=tuple(sorted(twin.touched)),
        samples=len(seen),
        outcome=outcome,
    )
