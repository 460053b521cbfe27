"""Line protocol: written points are read back, and malformed lines are refused by number."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from powerhall.runtime.errors import Rejected
from powerhall.store.line_protocol import Point, encode, parse_lines

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\#'), min_size=1, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=20)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.text(
    ',= \\"\n\r\t\0%0A5C25', min_size=1, max_size=12
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    NAMES,
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.dictionaries(NAMES, FLOATS | TEXTS, min_size=1),
    st.integers(0, 2**45),
)
@example("gpu", {"rack": ","}, {"a": 1.0}, 5)
@example("gpu", {"rack": "r1,"}, {"a": 1.0}, 5)
@example("gpu", {"rack": "a\\"}, {"a": 1.0}, 5)
@example("gpu", {"rack": "a\\,b"}, {"a": "x\\"}, 5)
@example("gpu", {"rack": '19"'}, {"a": 1.0}, 5)
def test_a_point_survives_encoding(name, tags, fields, time_ms):
    point = Point(name, tags, fields, time_ms)
    assert list(parse_lines(encode(point))) == [point]


def test_values_that_are_not_finite_are_left_out():
    assert encode(Point("gpu", {"node": "n1"}, {"a": float("nan"), "b": 2.0}, 5)) == b"gpu,node=n1 b=2.0 5\n"
    assert encode(Point("gpu", {}, {"a": float("inf")}, 5)) == b""


def test_a_malformed_line_is_named():
    with pytest.raises(Rejected, match="line 2"):
        list(parse_lines(b"gpu a=1.0 5\ngpu a=1.0\n"))


@pytest.mark.parametrize(
    "line",
    [
        *("gpu power_w= 5", "gpu a=1.0,power_w= 5", 'gpu a="x",b= 5', "gpu a=1.0, 5", 'gpu a="x", 5', "gpu =1.0 5"),
        *("gpu,t= a=1.0 5", "gpu,t a=1.0 5", "gpu a=one 5", "gpu a=1.0 five", "gpu 5", ",a=b c=1.0 5"),
    ],
)
def test_no_part_of_a_line_is_dropped_without_an_error(line):
    with pytest.raises(Rejected, match="line 1"):
        list(parse_lines(line.encode()))


def test_separators_of_other_alphabets_stay_in_their_text():
    point = Point("event", {}, {"detail": "one\u2028two"}, 7)
    assert list(parse_lines(encode(point))) == [point]


def test_newlines_cannot_break_a_batch():
    data = encode(Point("event", {"node": "a\nb"}, {"detail": "x\ny"}, 7))
    assert data.count(b"\n") == 1
