"""A lease is accepted by its node alone, in order, and in time."""

import msgspec
import pytest

from powerhall.lease import GpuCap, Lease, node_key, open_lease, sign_lease
from powerhall.runtime.errors import Rejected

SITE_KEY = bytes(range(32))
LEASE = Lease("n1", "plan", 7, 100.0, 130.0, 4000.0, (GpuCap(0, 500.0), GpuCap(1, None, 1200.0)))


def open_it(signed, node="n1", newest=6, now_s=110.0):
    return open_lease(signed, node_key(SITE_KEY, node), node, newest, now_s)


def test_a_signed_lease_opens_on_its_node():
    assert open_it(sign_lease(LEASE, node_key(SITE_KEY, "n1"))) == LEASE


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"newest": 7}, "sequence"),
        ({"now_s": 130.0}, "run out"),
        ({"node": "n2"}, "signature"),
    ],
)
def test_old_late_and_foreign_leases_are_refused(case, words):
    with pytest.raises(Rejected, match=words):
        open_it(sign_lease(LEASE, node_key(SITE_KEY, "n1")), **case)


def test_a_lease_for_another_node_under_my_key_is_refused():
    with pytest.raises(Rejected, match="node"):
        open_it(sign_lease(msgspec.structs.replace(LEASE, node="n2"), node_key(SITE_KEY, "n1")))


def test_a_changed_body_is_refused():
    signed = sign_lease(LEASE, node_key(SITE_KEY, "n1"))
    with pytest.raises(Rejected, match="signature"):
        open_it(msgspec.structs.replace(signed, body=signed.body.replace(b"4000", b"9000")))


def test_a_short_site_key_is_refused():
    with pytest.raises(Rejected, match="32 bytes"):
        node_key(b"short", "n1")
