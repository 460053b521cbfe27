"""Settings files: invalid values are refused by file, field and reason; secrets stay in their files."""

import msgspec
import pytest

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.settings import Secret, read_json, read_toml


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int = 8086


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    inner: Inner = Inner()


def refused(tmp_path, text, reader=read_toml, suffix="toml"):
    path = tmp_path / f"x.{suffix}"
    path.write_text(text)
    with pytest.raises(Rejected) as caught:
        reader(path, Outer)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_defaults_fill_missing_fields(tmp_path):
    (tmp_path / "x.toml").write_text('name = "a"')
    assert read_toml(tmp_path / "x.toml", Outer) == Outer("a", Inner(8086))


def test_an_unknown_key_is_refused_by_name(tmp_path):
    assert "prot" in refused(tmp_path, 'name = "a"\n[inner]\nprot = 1')


def test_a_wrong_type_names_its_field(tmp_path):
    assert "inner.port" in refused(tmp_path, 'name = "a"\n[inner]\nport = "x"')


def test_a_missing_field_is_named(tmp_path):
    assert "name" in refused(tmp_path, "")


def test_truncated_json_is_refused(tmp_path):
    assert "JSON" in refused(tmp_path, '{"name": "a', read_json, "json")


def test_broken_toml_is_refused(tmp_path):
    assert "TOML" in refused(tmp_path, "name = ")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "absent.toml", Outer)


def test_a_secret_is_read_anew_and_never_shown(tmp_path):
    path = tmp_path / "token"
    path.write_text("canary-1\n")
    secret = Secret(path)
    assert secret.read() == "canary-1"
    path.write_text("canary-2\n")
    assert secret.read() == "canary-2"
    assert "canary" not in repr(secret)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot read the secret"):
        secret.read()


def test_one_name_of_a_secret_serves_every_unit_of_systemd(tmp_path, monkeypatch):
    secret = "$CREDENTIALS_DIRECTORY/store-token"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match="CREDENTIALS_DIRECTORY is not set"):
        Secret(secret).read()
    for unit in ("a.service", "b.service"):
        (tmp_path / unit).mkdir()
        (tmp_path / unit / "store-token").write_text(f"token of {unit}\n")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / unit))
        assert Secret(secret).read() == f"token of {unit}"
    assert Secret(tmp_path / "$CREDENTIALS_DIRECTORY" / "x").path == tmp_path / "$CREDENTIALS_DIRECTORY" / "x"


CANARY = "KCB0Dshl2-canaryTOKEN=="


@pytest.mark.parametrize(
    "data",
    [f"{CANARY}\n", f"{CANARY}\r\n", f"\ufeff{CANARY}", f"  {CANARY} \t\n\n", f"\ufeff{CANARY}\r\n"],
)
def test_what_editors_put_around_a_token_does_not_count(tmp_path, data):
    (tmp_path / "token").write_bytes(data.encode())
    assert Secret(tmp_path / "token").read_token() == CANARY


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (f"# the token\n{CANARY}\n".encode(), "has 2 lines"),
        (f"{CANARY}\r{CANARY}".encode(), "has 2 lines"),
        (f"{CANARY}\u2028{CANARY}".encode(), "has 2 lines"),
        (f"{CANARY}\x85{CANARY}".encode(), "has 2 lines"),
        (CANARY.encode("utf-16"), "not UTF-8"),
        (f"\u201c{CANARY}\u201d".encode(), "not ASCII"),
        (f"{CANARY}\u200b".encode(), "not ASCII"),
        (f'"{CANARY}"'.encode(), "a quote"),
        (f"'{CANARY}'".encode(), "a quote"),
        (f"Token {CANARY}".encode(), "a space"),
        (f"{CANARY}\0".encode(), "control character"),
        (f"{CANARY[:5]}\t{CANARY[5:]}".encode(), "control character"),
    ],
)
def test_a_file_that_is_no_token_is_refused_in_a_line_that_does_not_show_it(tmp_path, data, words):
    (tmp_path / "token").write_bytes(data)
    with pytest.raises(ConfigError) as refusal:
        Secret(tmp_path / "token").read_token()
    text = str(refusal.value)
    assert text.startswith(f"{tmp_path / 'token'}: ")
    assert words in text
    assert "canary" not in text
    assert "\n" not in text
