"""Host lists as Slurm writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.hostlist import compress, expand


def test_ranges_keep_their_width_and_order():
    assert expand("gn[08-10],h1-k[1-2]-n[1,3],login") == (
        "gn08", "gn09", "gn10", "h1-k1-n1", "h1-k1-n3", "h1-k2-n1", "h1-k2-n3", "login",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["gn[01-", "gn]", "gn[5-3]", "gn[a-b]", "gn[]"])
def test_malformed_lists_are_refused(text):
    with pytest.raises(ValueError, match=r"must|range"):
        expand(text)


NODE = st.from_regex(r"[a-z]{1,3}(-[a-z]{1,2})?[0-9]{0,3}", fullmatch=True)


@given(st.lists(NODE, max_size=30))
def test_compression_loses_nothing(names):
    assert expand(compress(names)) == tuple(names)


def test_runs_become_ranges():
    assert compress([f"gn{i:02d}" for i in range(1, 17)]) == "gn[01-16]"
