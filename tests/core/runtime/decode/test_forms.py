"""The decoder: whatever the bytes, the caller gets what fits or one line with file and place."""

import argparse
import contextlib
import gzip
import io
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import Future

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.runtime.decode import limits
from powerhall.runtime.decode.bytes_in import gunzip, inflate, open_text, read_file
from powerhall.runtime.decode.csv_table import CsvTable, read_csv
from powerhall.runtime.decode.json_data import decode_json, decode_plain_json
from powerhall.runtime.decode.numbers_in import count_of, digits, finite, whole
from powerhall.runtime.decode.toml_data import decode_toml
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.files import open_regular, replace_file


class Point(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    values: list[float] = []


def refusal(call, *arguments):
    with pytest.raises(PowerhallError) as caught:
        call(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) <= 2000
    return line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"name": "a\xff"}', "line 1: not UTF-8: byte 0xff at offset 11"),
        (b'\n{"\xff": 1}', "line 2: not UTF-8: byte 0xff"),
        (b"[" * 1_000_000, "expected `object`"),
        (b'{"values": [1e400]}', "out of range"),
        (b'{"values": [1e200]}', "values[0]: 1e+200: must be within"),
        (b'{"values": [NaN]}', "not valid JSON"),
        (b'{"na\\nme": 1}', "na\\nme"),
        (b'{"name": "\\ud800"}', "not valid JSON"),
        (b'{"name": 5}', "name: 5: expected `str`"),
        (b'{"values": ' + b"1" * 5000 + b"}", "p.json: "),
    ],
)
def test_json_of_a_known_form_is_refused_in_one_line(body, said):
    line = refusal(decode_json, body, Point, "p.json")
    assert line.startswith("p.json: ")
    assert said in line


def test_a_text_that_looks_like_a_large_number_is_fine():
    assert decode_json(b'{"name": " 7e99 and :1e300"}', Point, "p").name == " 7e99 and :1e300"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper than 64"),
        (b'{"a": [{"b": 1e300}]}', "a[0].b: 1e+300: must be within"),
        (b"-" + b"1" * 40, "file: -1e39: must be within"),
        (b"[" * 1_000_000, "nested too deep"),
        (b'{"a": -1e300}', "a: -1e+300"),
        (b"", "not valid JSON"),
    ],
)
def test_json_of_unknown_form_is_limited(body, said):
    assert said in refusal(decode_plain_json, body, "bmc")


def test_unsigned_words_of_other_programs_pass():
    assert decode_plain_json(b"[18446744073709551614, 4294967294]", "x") == [2**64 - 2, 2**32 - 2]


@pytest.mark.parametrize("digits", [2_000, 5_000, 200_000])
def test_a_hexadecimal_number_of_any_length_is_refused_by_its_magnitude(digits):
    with pytest.raises(Rejected, match=r"a\.b: \d?1?\d*e\d+: must be within 1e36"):
        decode_toml(b"[a]\nb = 0x" + b"f" * digits, "site.toml")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"a = " + b"[" * 5000, "nested too deep"),
        (b"a = " + b"1" * 5000, "not valid TOML"),
        (b"a = 1\nb = '\xff'", "line 2: not UTF-8"),
        (b".".join([b"a"] * 100_000) + b" = 1", "line 1: a key of more than 64 parts"),
        (b"[x]\na = [1.0, inf]", "x.a[1]: inf: must be finite"),
        (b"a = nan", "a: nan: must be finite"),
        (b"a = 1e300", "must be within"),
        (b"a = " + b"[" * 66 + b"]" * 66, "nested deeper than 64"),
    ],
)
def test_toml_is_limited(body, said):
    line = refusal(decode_toml, body, "s.toml")
    assert line.startswith("s.toml: ")
    assert said in line


@pytest.mark.parametrize("part", ['"a".', "'a'.", "a.", "a . 'b'.\"c\"\t.", '"\\"".'])
@pytest.mark.parametrize("form", ["{}a=1", "x=1\n  {}a=1", "[{}a]", "[[ {}a]]", "x={{{}a=1}}", "x={{b=1, {}a=1}}"])
def test_keys_of_a_hundred_thousand_parts_cost_no_time(part, form):
    """Tomllib takes a time that rises with the square of their number: 10 s and more here."""
    began_s = time.process_time()
    assert "a key of more than 64 parts" in refusal(decode_toml, form.format(part * 100_000).encode(), "x.toml")
    assert time.process_time() - began_s < 3.0


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 500_000, '"' * 1_000_000, ',"' * 500_000, "{'," * 300_000, "," * 900_000]
)
def test_looking_for_long_keys_costs_no_time_itself(text):
    began_s = time.process_time()
    refusal(decode_toml, text.encode(), "x.toml")
    assert time.process_time() - began_s < 3.0


@pytest.mark.parametrize("fill", [b"\0", b"0,0\n"])
def test_a_bomb_is_refused_by_ratio_long_before_it_fills_the_memory(fill, tmp_path):
    bomb = gzip.compress(fill * (256 * 2**20 // len(fill)))
    assert "more than 200 times" in refusal(gunzip, bomb, "x.csv.gz")
    (tmp_path / "x.csv.gz").write_bytes(bomb)
    assert "more than 200 times" in refusal(read_csv, tmp_path / "x.csv.gz")


def test_expansion_ends_at_the_limit():
    noise = os.urandom(40_000)
    assert "expands to more than 16 KiB" in refusal(gunzip, gzip.compress(noise), "x", 16_384)
    assert gunzip(gzip.compress(noise), "x", 40_000) == noise


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 3))
def test_every_gzip_file_expands_as_the_standard_library_does(parts, zeros):
    body = b"".join(map(gzip.compress, parts)) + bytes(zeros if parts else 0)
    assert gunzip(body, "x") == gzip.decompress(body) if body else True


@given(st.binary(max_size=2000), st.data())
def test_cut_or_changed_data_is_refused_or_whole(body, data):
    packed = bytearray(zlib.compress(body))
    at = data.draw(st.integers(0, len(packed) - 1))
    assert "x: " in refusal(inflate, bytes(packed[:at]), "x", 10_000)
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        assert inflate(bytes(packed), "x", 10_000) == body
    except Rejected as error:
        assert str(error).startswith("x: ")  # noqa: PT017


def test_files_are_read_up_to_a_limit_that_the_environment_raises(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"a" * 2000)
    assert "larger than 1000 bytes" in refusal(read_file, path, 1000)
    monkeypatch.setenv(limits.FACTOR_VARIABLE, "2")
    assert len(read_file(path, 1000)) == 2000
    monkeypatch.setenv(limits.FACTOR_VARIABLE, "many")
    assert "must be a number from 1 to 1000" in refusal(read_file, path, 1000)
    monkeypatch.delenv(limits.FACTOR_VARIABLE)
    assert "must be a regular file" in refusal(read_file, "/dev/zero", 1000)
    assert "cannot read" in refusal(read_file, "a\0b", 1000)


@pytest.mark.parametrize("kind", ["pipe", "open pipe", "socket", "folder", "loop", "device"])
def test_what_is_no_regular_file_never_holds_a_reader_or_a_writer(tmp_path, kind):
    path = tmp_path / "file"
    with contextlib.ExitStack() as held:
        if "pipe" in kind:
            os.mkfifo(path)
        if kind == "open pipe":
            held.callback(os.close, os.open(path, os.O_RDWR))
        elif kind == "socket":
            held.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        elif kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "device":
            path.symlink_to("/dev/full")
        says = {"folder": "Is a directory", "loop": "Too many levels"}.get(kind, "must be a regular file")
        assert f"file: cannot read: {says}" in within_5_s(refusal, read_file, path, 1000)
        for flags in (os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_APPEND):
            with pytest.raises(OSError, match=r"regular file|directory|levels"):
                within_5_s(open_regular, path, flags)
        path.rename(tmp_path / ".new.part")
        with pytest.raises(OSError, match=r"regular file|directory|levels"):
            within_5_s(replace_file, tmp_path / "new", b"x")
        assert not (tmp_path / "new").exists()


def within_5_s(call, *args):
    """The call's value or error; a call that waits is left behind in its thread."""
    done = Future()

    def run():
        try:
            done.set_result(call(*args))
        except BaseException as error:  # noqa: BLE001
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result(5.0)


def test_what_the_shell_has_opened_is_read(tmp_path):
    code = "import sys; from powerhall.runtime.decode.bytes_in import read_file; print(read_file(sys.argv[1], 100))"
    for command in ("echo hi | {} /dev/stdin", "{} <(echo hi)"):
        text = command.format(f"{sys.executable} -c {shlex.quote(code)}")
        done = subprocess.run(["bash", "-c", text], check=False, capture_output=True, text=True, timeout=30)
        assert done.stdout == "b'hi\\n'\n", done.stderr


def test_a_large_file_is_refused_before_it_takes_memory(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    assert "larger than 4 GiB" in refusal(read_file, tmp_path / "sparse", 4 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_tables_name_the_line(tmp_path):
    rows = list(CsvTable(io.StringIO("a,b\n1,2\n\n3\n4,5,6,7\n"), "x.csv"))
    assert rows == [
        (2, {"a": "1", "b": "2"}),
        (4, {"a": "3", "b": None}),
        (5, {"a": "4", "b": "5", "extra cells": "6,7"}),
    ]
    table = CsvTable(io.StringIO("a,b\n1,2\n" + "3" * 200_000 + ",4\n"), "x.csv")
    assert "x.csv: line 3: field larger than field limit" in refusal(list, table)
    assert "must be there once" in refusal(CsvTable, io.StringIO("a,b,a\n"), "x.csv")
    assert "more than 1000 columns" in refusal(CsvTable, io.StringIO("a," * 2000), "x.csv")
    (tmp_path / "bad.csv").write_bytes(b"a,b\n1,\xe9\n")
    assert "line 2: not UTF-8: byte 0xe9 at offset 6" in refusal(open_text, tmp_path / "bad.csv")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e300", "", "x", "0x10", "1" * 400])
def test_a_number_is_finite_and_of_this_world(text):
    with pytest.raises(ValueError, match="must be"):
        finite(text)


@pytest.mark.parametrize("text", ["1" * 5000, "1.0", "", "+-1", "²", "1e3", "nan"])
def test_a_whole_number_is_one(text):
    with pytest.raises(ValueError, match="must"):
        whole(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_what_the_standard_library_writes_is_read_the_same_or_refused(value):
    body = json.dumps(value).encode()
    try:
        assert decode_plain_json(body, "x") == json.loads(body)
    except Rejected as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_count_of_an_option_has_a_range(capsys):
    parser = argparse.ArgumentParser(prog="x")
    parser.add_argument("--gpus", type=count_of(1, 4096))
    assert parser.parse_args(["--gpus", "8"]).gpus == 8
    for text in ("0", "4097", "1" * 5000, "x", "1e3", "-1"):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--gpus={text}"])
        assert "must" in capsys.readouterr().err


@given(
    st.one_of(st.text(), st.from_regex(r"[0-9]{1,25}", fullmatch=True), st.sampled_from(["²", "٣", "-1", "+1", "1_0"]))
)
def test_digits_are_ascii_digits_alone(text):
    plain = 0 < len(text) <= 20 and set(text) <= set("0123456789")
    assert digits(text) == (int(text) if plain else None)
    assert digits("9" * 5000) is None
