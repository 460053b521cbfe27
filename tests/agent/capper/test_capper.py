"""The capper applies valid leases and nothing else, each within its deadline."""

import pytest

from powerhall.lease import (
    GpuCap,
    Lease,
    SignedConfirmation,
    SignedLease,
    node_key,
    open_confirmation,
    sign_lease,
)
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.limiter import Range

KEY = node_key(bytes(range(32)), "n1")


class FakeGpus:
    """Two GPUs behind the limiter's interface: 200 to 700 W."""

    def __init__(self):
        self.limits = {0: 700.0, 1: 650.0}
        self.locks = {0: None, 1: None}
        self.clocks = {0: 1980.0, 1: 1980.0}
        self.broken = set()

    def ranges(self):
        return {0: Range(200.0, 700.0), 1: Range(200.0, 700.0)}

    def read(self):
        return tuple(GpuCap(gpu, watts) for gpu, watts in self.limits.items())

    def clocks_mhz(self, gpus):
        return {gpu: self.clocks[gpu] for gpu in gpus}

    def apply(self, caps):
        for cap in caps:
            self.locks[cap.gpu] = cap.sm_clock_mhz
            if cap.gpu not in self.broken and cap.power_limit_w is not None:
                self.limits[cap.gpu] = cap.power_limit_w
        if self.broken & {cap.gpu for cap in caps}:
            raise PowerhallError("caps not held")


CAPS = (GpuCap(0, 500.0), GpuCap(1, 400.0))


def lease(sequence=1, expires_s=130.0, caps=CAPS, node="n1", key=KEY):
    return sign_lease(Lease(node, "plan", sequence, 100.0, expires_s, 4000.0, caps), key)


@pytest.fixture
def gpus():
    return FakeGpus()


@pytest.fixture
def capper(gpus, tmp_path):
    return Capper(gpus, node="n1", key=KEY, safe_limit_w=300.0, memory=tmp_path / "found.json")


def test_capper_starts_at_the_safe_caps(capper, gpus):
    assert gpus.limits == {0: 300.0, 1: 300.0}


def test_a_lease_is_applied_and_ends_by_itself(capper, gpus):
    capper.offer(lease(), 100.0, 0.0)
    assert gpus.limits == {0: 500.0, 1: 400.0}
    for second in range(30):
        capper.heard(float(second))
        capper.tick(float(second))
        assert gpus.limits[0] == 500.0
    capper.heard(30.0)
    capper.tick(30.0)
    assert gpus.limits == {0: 300.0, 1: 300.0}
    assert capper.status().reason == "expired"


def test_a_silent_agent_brings_the_safe_caps_within_two_seconds(capper, gpus):
    capper.offer(lease(), 100.0, 0.0)
    capper.tick(1.4)
    assert gpus.limits[0] == 500.0
    capper.tick(1.8)
    assert gpus.limits[0] == 300.0
    assert capper.status().reason == "agent_silent"


def test_a_step_of_the_wall_clock_does_not_prolong_a_lease(capper, gpus):
    capper.offer(lease(expires_s=130.0), 100.0, 50.0)
    capper.heard(80.1)
    capper.tick(80.1)  # 30 s of monotonic time later, for any wall clock
    assert gpus.limits[0] == 300.0


@pytest.mark.parametrize(
    "signed",
    [
        lease(caps=(GpuCap(0, 500.0), GpuCap(1, 900.0))),
        lease(caps=(GpuCap(0, 500.0), GpuCap(7, 500.0))),
        lease(caps=(GpuCap(0, 500.0, 1e9),)),
        lease(expires_s=99.0),
        lease(node="n2"),
        lease(key=node_key(bytes(32), "n1")),
    ],
    ids=["above the range", "unknown GPU", "absurd clock", "run out", "another node", "another key"],
)
def test_an_invalid_lease_changes_nothing(capper, gpus, signed):
    before = dict(gpus.limits)
    with pytest.raises(Rejected):
        capper.offer(signed, 100.0, 0.0)
    assert gpus.limits == before


def again(gpus, tmp_path, **more):
    """A capper that starts with the memory of the last one."""
    return Capper(gpus, node="n1", key=KEY, safe_limit_w=300.0, memory=tmp_path / "found.json", **more)


@pytest.mark.parametrize("end", ["crash", "orderly stop", "boot"])
def test_an_older_lease_is_refused_even_after_a_restart(capper, gpus, tmp_path, end):
    capper.offer(lease(sequence=5), 100.0, 0.0)
    if end == "orderly stop":
        capper.restore()
    other = again(gpus, tmp_path, boot="other" if end == "boot" else "", started_s=100.0)
    with pytest.raises(Rejected, match="sequence"):
        other.offer(lease(sequence=4, caps=(GpuCap(0, 700.0),)), 100.0, 0.0)
    assert gpus.limits == {0: 300.0, 1: 300.0}
    if end == "boot":  # it may have run out while the host was off
        with pytest.raises(Rejected, match="before a boot"):
            other.offer(lease(sequence=5), 100.0, 0.0)
        assert gpus.limits == {0: 300.0, 1: 300.0}
        return
    other.offer(lease(sequence=5), 100.0, 0.0)  # the newest may come again: the ledger counts it until its end
    assert gpus.limits == {0: 500.0, 1: 400.0}


def test_a_lease_in_force_is_not_taken_twice(capper):
    capper.offer(lease(sequence=5), 100.0, 0.0)
    with pytest.raises(Rejected, match="sequence"):
        capper.offer(lease(sequence=5), 100.0, 0.0)


def test_without_a_memory_leases_from_before_the_start_are_refused_also_after_a_crash(gpus, tmp_path):
    for _ in range(2):
        fresh = again(gpus, tmp_path, started_s=100.5)  # issued at 100.0: some other lease may have held since
        with pytest.raises(Rejected, match="issued_s"):
            fresh.offer(lease(), 101.0, 0.0)
    assert gpus.limits == {0: 300.0, 1: 300.0}


def test_a_lease_given_up_for_a_silent_agent_comes_back_with_the_agent(capper, gpus):
    signed = lease()
    capper.offer(signed, 100.0, 0.0)
    capper.tick(2.0)
    assert gpus.limits[0] == 300.0
    capper.offer(signed, 103.0, 3.0)
    assert gpus.limits[0] == 500.0
    capper.heard(29.0)
    capper.tick(29.9)
    assert gpus.limits[0] == 500.0
    capper.heard(30.1)
    capper.tick(30.1)  # it ends when it would have ended
    assert gpus.limits[0] == 300.0


def test_caps_that_were_found_come_back_after_a_crash_and_an_orderly_stop(gpus, tmp_path):
    again(gpus, tmp_path)  # the capper ends here
    again(gpus, tmp_path).restore()
    assert gpus.limits == {0: 700.0, 1: 650.0}
    gpus.limits = {0: 600.0, 1: 600.0}
    again(gpus, tmp_path).restore()
    assert gpus.limits == {0: 600.0, 1: 600.0}, "after an orderly stop they are found anew"


def test_after_a_boot_the_found_caps_are_read_again(gpus, tmp_path):
    again(gpus, tmp_path, boot="one")  # the host ends here
    gpus.limits = {0: 700.0, 1: 700.0}
    again(gpus, tmp_path, boot="two").restore()
    assert gpus.limits == {0: 700.0, 1: 700.0}


def test_a_node_that_must_stay_within_its_budget_keeps_the_safe_caps_when_the_capper_stops(capper, gpus):
    capper.offer(lease(), 100.0, 0.0)
    capper.leave()
    assert gpus.limits == {0: 300.0, 1: 300.0}


def test_a_memory_that_cannot_be_written_means_safe_caps_and_no_lease(gpus, tmp_path):
    (tmp_path / "found.json").write_text('{"found":[]}')
    (tmp_path / ".found.json.part").mkdir()
    capper = again(gpus, tmp_path)
    assert gpus.limits == {0: 300.0, 1: 300.0}
    assert "cannot write" in capper.status().error
    with pytest.raises(Rejected, match="cannot write"):
        capper.offer(lease(), 100.0, 0.0)
    assert gpus.limits == {0: 300.0, 1: 300.0}
    assert capper.confirmation(100.0) is None


def test_a_gpu_that_answers_late_gets_its_safe_cap(gpus, tmp_path):
    known = dict(gpus.ranges())
    gpus.ranges = lambda: {0: known[0]}
    capper = again(gpus, tmp_path)
    assert gpus.limits == {0: 300.0, 1: 650.0}
    gpus.ranges = lambda: known
    capper.tick(1.0)
    assert gpus.limits == {0: 300.0, 1: 300.0}


def test_a_clock_lock_keeps_the_gpus_own_limit_and_is_set_again_when_somebody_lifts_it(capper, gpus):
    capper.offer(lease(caps=(GpuCap(0, None, 1200.0), GpuCap(1, 500.0, 1100.0))), 100.0, 0.0)
    assert (gpus.limits, gpus.locks) == ({0: 700.0, 1: 500.0}, {0: 1200.0, 1: 1100.0})
    gpus.clocks = {0: 1200.0, 1: 1110.0}
    capper.tick(1.0)
    assert capper.rewrites == 0
    gpus.clocks[0], gpus.locks[0] = 1980.0, None
    capper.heard(2.0)
    capper.tick(2.0)
    assert (capper.rewrites, gpus.locks[0]) == (1, 1200.0)
    capper.tick(9.0)
    assert (gpus.limits, gpus.locks) == ({0: 300.0, 1: 300.0}, {0: None, 1: None})


def confirmed(capper):
    signed = capper.confirmation(100.0)
    return None if signed is None else open_confirmation(signed, KEY, "n1").sequence


def test_only_caps_that_read_back_are_confirmed(capper, gpus):
    assert confirmed(capper) is None
    capper.offer(lease(sequence=7), 100.0, 0.0)
    assert confirmed(capper) == 7
    capper.tick(9.0)  # at the safe caps again: no lease older than 7 is accepted
    assert confirmed(capper) == 7
    gpus.broken = {1}
    gpus.limits[1] = 700.0
    capper.offer(lease(sequence=8), 100.0, 10.0)
    assert confirmed(capper) is None
    gpus.broken = set()
    capper.heard(11.5)
    capper.tick(11.5)
    assert confirmed(capper) == 8
    capper.restore()
    assert confirmed(capper) is None


def test_a_lease_is_refused_as_a_confirmation(capper):
    signed = lease()
    with pytest.raises(Rejected, match="signature"):
        open_confirmation(SignedConfirmation(signed.body, signed.signature), KEY, "n1")
    capper.offer(signed, 100.0, 0.0)
    word = capper.confirmation(100.0)
    with pytest.raises(Rejected, match="signature"):
        open_confirmation(word, node_key(bytes(range(32)), "n2"), "n2")


def test_a_signature_with_invalid_characters_is_refused_and_changes_nothing(capper):
    with pytest.raises(Rejected, match="signature"):
        capper.offer(SignedLease(lease().body, "\u00fc" * 64), 100.0, 0.0)


def test_a_limit_changed_by_somebody_else_is_set_again_within_a_second(capper, gpus):
    capper.offer(lease(), 100.0, 0.0)
    gpus.limits[0] = 700.0
    capper.tick(1.0)
    assert gpus.limits[0] == 500.0
    assert capper.rewrites == 1


def test_a_failed_write_means_safe_caps_where_possible_and_is_tried_again(capper, gpus):
    gpus.broken = {1}
    capper.offer(lease(), 100.0, 0.0)
    assert gpus.limits[0] == 300.0
    assert capper.status().reason == "write_failed"
    gpus.limits[1] = 700.0
    gpus.broken = set()
    capper.tick(1.0)
    assert gpus.limits[1] == 300.0
