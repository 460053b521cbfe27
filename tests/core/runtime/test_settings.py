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
