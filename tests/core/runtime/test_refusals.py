"""A refusal names the field with its path, the value, and what is allowed."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
import pytest

from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import convert, read_json


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Watts:
    def __init__(self, text: str) -> None:
        self.value = float(text)


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    share: Annotated[float, msgspec.Meta(ge=0.5, le=1.0)] = 1.0
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] | None = None
    kind: Literal["all", "air"] = "all"
    colour: Colour = Colour.RED
    power: Watts | None = None


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] = {}
    draws: dict[str, Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]] = {}


def hook(kind: type, value: object) -> object:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError("must be a number of watts") from None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"parts": [{}, {"share": 0.2}]}, "parts[1].share: 0.2: must be a number from 0.5 to 1"),
        ({"parts": [{"share": float("nan")}]}, "parts[0].share: nan: must be a number from 0.5 to 1"),
        ({"parts": [{"count": 12}]}, "parts[0].count: 12: must be a whole number from 1 to 9"),
        ({"parts": [{"count": "x"}]}, "parts[0].count: 'x': expected `int | null`, got `str`"),
        ({"parts": [{"kind": "liquid"}]}, "parts[0].kind: 'liquid': must be one of all, air"),
        ({"parts": [{"colour": "green"}]}, "parts[0].colour: 'green': must be one of red, blue"),
        ({"parts": [{"power": "much"}]}, "parts[0].power: 'much': must be a number of watts"),
        ({"parts": [{"color": "red"}]}, "parts[0]: object contains unknown field `color`"),
        ({"by_name": {"a": {}, "b": {"share": 7}}}, "by_name.b.share: 7: must be a number from 0.5 to 1"),
        ({"draws": {"full": 1.0, "eco": 3.0}}, "draws.eco: 3.0: must be a number from 0 to 2"),
        ({"parts": {}}, "parts: expected `array`, got `object`"),
        ([], "file: expected `object`, got `array`"),
    ],
)
def test_field_value_and_what_is_allowed(data, said):
    with pytest.raises(Rejected) as caught:
        convert(data, Whole, "x.toml", hook)
    assert str(caught.value) == f"x.toml: {said}"


def test_json_with_two_faults_is_refused_for_the_first(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"parts": [{"kind": "liquid"}, ')
    with pytest.raises(Rejected, match=r"x\.json: parts\[0\]\.kind: must be one of all, air"):
        read_json(path, Whole)
