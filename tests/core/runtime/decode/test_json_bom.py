"""A byte order mark before JSON costs nothing, as before CSV and TOML."""

import msgspec
import pytest

from powerhall.runtime.decode.json_data import decode_json, decode_plain_json, read_json
from powerhall.runtime.errors import Rejected

BOM = b"\xef\xbb\xbf"


class Row(msgspec.Struct):
    """One field."""

    watts: float


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "jobs.json"
    path.write_bytes(BOM + b'{"watts": 1.5}')
    assert read_json(path, Row) == Row(1.5)
    assert decode_plain_json(path.read_bytes(), "x") == {"watts": 1.5}


@pytest.mark.parametrize("body", [BOM, BOM + BOM + b"1", BOM + b'{"watts": "x"}', b"\xff\xfe" + b"{}"])
def test_what_is_wrong_behind_it_is_refused_in_one_line(body):
    with pytest.raises(Rejected) as refused:
        decode_json(body, Row, "jobs.json")
    assert "\n" not in str(refused.value)


def test_a_refusal_names_the_value_behind_it():
    with pytest.raises(Rejected, match="watts"):
        decode_json(BOM + b'{"watts": "x"}', Row, "jobs.json")
