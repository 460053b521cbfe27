"""Random leases, faults of GPUs, crashes and steps of the clock against the capper's decisions; the rules are checked
from the true time and the GPUs alone."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from powerhall.lease import GpuCap, Lease, node_key, open_confirmation, sign_lease
from powerhall.runtime.errors import Rejected
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.limiter import CapsNotHeld, Range

KEY = node_key(bytes(range(32)), "n1")
GPUS, SAFE_W, START_S = 3, 300.0, 1_800_000_000.0
SKEW_S, GRACE_S, TICK_S = 1.0, 2.0, 0.2


class FaultyGpus:
    """GPUs that hang (what was asked for last is set when they are back), are lost, or refuse to be set."""

    def __init__(self):
        self.limits = [650.0 + gpu for gpu in range(GPUS)]
        self.uuids = [f"GPU-{gpu}" for gpu in range(GPUS)]
        self.found = {uuid: {limit_w} for uuid, limit_w in zip(self.uuids, self.limits, strict=True)}
        self.unseen = set()
        """GPUs that were exchanged and that the capper has had no time to look at."""
        self.state = ["well"] * GPUS
        self.pending = {}

    def answering(self):
        return [gpu for gpu in range(GPUS) if self.state[gpu] in {"well", "refuses"}]

    def ranges(self):
        return {gpu: Range(200.0, 700.0, self.uuids[gpu], 700.0) for gpu in self.answering()}

    def read(self):
        return tuple(GpuCap(gpu, self.limits[gpu]) for gpu in self.answering())

    def clocks_mhz(self, gpus):
        return dict.fromkeys(gpus, 0.0)

    def apply(self, caps):
        failed, above = set(), set()
        for cap in caps:
            if self.state[cap.gpu] == "well":
                self.limits[cap.gpu] = cap.power_limit_w
                continue
            failed.add(cap.gpu)
            if self.state[cap.gpu] == "hung":
                self.pending[cap.gpu] = cap.power_limit_w
            if self.state[cap.gpu] == "refuses" and self.limits[cap.gpu] > cap.power_limit_w:
                above.add(cap.gpu)
        if failed:
            raise CapsNotHeld("caps not held", failed=frozenset(failed), above=frozenset(above))

    def mend(self, gpu):
        if gpu in self.pending and self.state[gpu] == "hung":
            self.limits[gpu] = self.pending.pop(gpu)
        self.state[gpu] = "well"

    def exchange(self, gpu, number):
        self.uuids[gpu], self.limits[gpu] = f"GPU-new-{number}", 690.0
        self.found[self.uuids[gpu]] = {690.0}
        self.unseen.add(gpu)
        self.pending.pop(gpu, None)


class CapperMachine(RuleBasedStateMachine):
    """The checker knows the true time, what the planner issued, and when a GPU came back; nothing of the capper."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.gpus, self.true_s, self.ahead_s = FaultyGpus(), START_S, 0.0
        self.sequence, self.issued, self.ends = 0, [], []
        self.well_since = [START_S - 100.0] * GPUS
        self.alive, self.exchanged = True, 0
        self.start()

    def teardown(self):
        self.folder.cleanup()

    @property
    def mono_s(self):
        return self.true_s - START_S + 1000.0

    def start(self):
        self.capper = Capper(
            self.gpus, node="n1", key=KEY, safe_limit_w=SAFE_W, memory=Path(self.folder.name) / "memory.json",
            started_s=self.true_s + self.ahead_s, boot="b1", gpu_count=GPUS,
        )  # fmt: skip

    @rule(seconds=st.sampled_from([0.2, 1.0, 2.4, 5.0]))
    def pass_time(self, seconds):
        for _ in range(round(seconds / TICK_S)):
            self.true_s += TICK_S
            if self.alive:
                self.capper.heard(self.mono_s)
            self.capper.note_clocks(self.true_s + self.ahead_s, self.mono_s)
            self.capper.tick(self.mono_s)
            self.gpus.unseen -= set(self.gpus.answering())
            self.check()

    @rule(lasts_s=st.sampled_from([3.0, 10.0, 60.0]), watts=st.sampled_from([200.0, 400.0, 700.0]))
    def issue_and_offer(self, lasts_s, watts):
        self.sequence += 1
        caps = tuple(GpuCap(gpu, watts) for gpu in range(GPUS))
        lease = Lease("n1", "p", self.sequence, self.true_s, self.true_s + lasts_s, 1.0, caps)
        self.issued.append(lease)
        self.offer(lease)

    @precondition(lambda self: self.issued)
    @rule(back=st.integers(0, 3))
    def replay(self, back):
        self.offer(self.issued[max(0, len(self.issued) - 1 - back)])

    def offer(self, lease):
        try:
            self.capper.offer(sign_lease(lease, KEY), self.true_s + self.ahead_s, self.mono_s)
        except Rejected:
            return
        first = next((row for row in self.ends if row[0] == lease.sequence), None)
        span_s = lease.expires_s - lease.issued_s
        assert first is None or lease.sequence == max(row[0] for row in self.ends), "an older lease came back"
        end_s = self.true_s + span_s if first is None else first[1]
        if abs(self.ahead_s) <= SKEW_S:
            end_s = min(end_s, lease.expires_s + SKEW_S)
        self.ends.append((lease.sequence, end_s, lease.caps[0].power_limit_w))

    @rule(gpu=st.integers(0, GPUS - 1), state=st.sampled_from(["hung", "lost", "refuses"]))
    def break_gpu(self, gpu, state):
        if self.gpus.state[gpu] == "well":
            self.gpus.state[gpu] = state

    @rule(gpu=st.integers(0, GPUS - 1))
    def mend_gpu(self, gpu):
        if self.gpus.state[gpu] != "well":
            self.gpus.mend(gpu)
            self.well_since[gpu] = self.true_s

    @rule(gpu=st.integers(0, GPUS - 1))
    def exchange_gpu(self, gpu):
        if self.gpus.state[gpu] == "lost":
            self.exchanged += 1
            self.gpus.exchange(gpu, self.exchanged)
            self.well_since[gpu] = self.true_s

    @rule(gpu=st.integers(0, GPUS - 1))
    def somebody_sets_a_limit(self, gpu):
        self.gpus.limits[gpu] = 700.0
        if gpu in self.gpus.unseen:  # what is found is what is there when the capper first looks
            self.gpus.found[self.gpus.uuids[gpu]].add(700.0)
        self.well_since[gpu] = self.true_s

    @rule(step_s=st.sampled_from([-3600.0, 3600.0, 0.5, -0.5]))
    def set_the_clock(self, step_s):
        self.ahead_s = 0.0 if self.ahead_s else step_s

    @rule()
    def silence_or_wake_the_agent(self):
        self.alive = not self.alive

    @rule(damage=st.booleans())
    def crash(self, damage):
        if damage:
            (Path(self.folder.name) / "memory.json").write_bytes(b"\xff")
        self.start()
        for gpu in self.gpus.answering():
            assert self.gpus.limits[gpu] <= SAFE_W or self.gpus.state[gpu] == "refuses"

    @rule()
    def stop_in_order(self):
        unmended = [gpu for gpu in range(GPUS) if self.gpus.state[gpu] != "well"]
        is_done = self.capper.restore()
        for gpu in set(range(GPUS)) - set(unmended):
            if self.well_since[gpu] < self.true_s - GRACE_S:
                assert self.gpus.limits[gpu] in self.gpus.found[self.gpus.uuids[gpu]]
        assert is_done or unmended
        self.start()
        self.well_since = [self.true_s] * GPUS

    def check(self):
        """Two seconds after the last valid lease every GPU that answers is at its safe cap."""
        most_w = SAFE_W
        newest = max((row[0] for row in self.ends), default=0)
        for sequence, end_s, watts in self.ends:
            if sequence == newest and self.true_s <= end_s + GRACE_S:
                most_w = max(most_w, watts)
        for gpu in range(GPUS):
            if self.gpus.state[gpu] == "well" and self.true_s - self.well_since[gpu] > GRACE_S:
                assert self.gpus.limits[gpu] <= most_w, f"GPU {gpu}: {self.gpus.limits[gpu]} W above {most_w} W"

    @invariant()
    def status_can_always_be_read(self):
        if hasattr(self, "capper"):
            assert len(self.capper.status().caps) == len(self.gpus.answering())
            self.check_confirmation()

    def check_confirmation(self):
        """A confirmed number frees what older leases allowed: no GPU may hold more, hung ones included."""
        signed = self.capper.confirmation(self.true_s)
        if signed is None:
            return
        sequence = open_confirmation(signed, KEY, "n1").sequence
        most_w = max([SAFE_W, *(row[2] for row in self.ends if row[0] == sequence)])
        for gpu in range(GPUS):
            if self.true_s - self.well_since[gpu] > GRACE_S:
                assert self.gpus.limits[gpu] <= most_w


CapperMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestCapper = CapperMachine.TestCase


def test_a_gpu_that_was_exchanged_just_before_a_stop_keeps_what_it_came_with():
    machine = CapperMachine()
    machine.begin()
    machine.break_gpu(gpu=0, state="lost")
    machine.exchange_gpu(gpu=0)
    machine.mend_gpu(gpu=0)
    machine.stop_in_order()
    machine.pass_time(seconds=2.4)
    machine.stop_in_order()  # it has what the new GPU came with, and checks it
    machine.teardown()
