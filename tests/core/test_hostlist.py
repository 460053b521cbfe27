"""Host lists as Slurm writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.hostlist import compress, count_names, expand


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


@given(st.lists(st.sampled_from(["gn1", "a[1-3]", "b[01-10,20]-c[1-4]", " ", "", "x[5]y"])).map(",".join))
def test_the_number_of_names_is_known_without_them(text):
    assert count_names(text) == len(expand(text))


def test_runs_become_ranges():
    assert compress([f"gn{i:02d}" for i in range(1, 17)]) == "gn[01-16]"


@pytest.mark.parametrize(
    "text",
    [
        "gn[1-200000000]",
        "a[1-1000]b[1-1001]",
        "gn[1-600000],hn[1-600000]",
        "gn[1-" + "9" * 5000 + "]",
        "gn[0-" + "9" * 20 + "]",
        "".join(f"a[{i}]" for i in range(5000)),
        "a[1[2]]",
        "a[²]",
    ],
)
def test_a_list_of_more_names_than_a_site_has_is_refused_at_once(text):
    with pytest.raises(ValueError, match=r"must|range") as caught:
        expand(text)
    assert len(str(caught.value)) < 200


def test_the_largest_site_passes():
    assert len(expand("r[001-5500]n[1-8]")) == 44_000


def test_a_name_of_many_digits_is_a_name():
    name = "a" + "9" * 5000
    assert expand(compress([name])) == (name,)


@pytest.mark.parametrize("text", ["x" * 4000 + "[1-1000000]", "[1-9]" + "y" * 300, "a[1-2]" * 4 + "z" * 255])
def test_long_names_are_not_multiplied(text):
    """A million names of 4 KB are 4 GB."""
    with pytest.raises(ValueError, match="255 characters"):
        expand(text)
    assert len(expand("n" * 240 + "[001-999]")) == 999
