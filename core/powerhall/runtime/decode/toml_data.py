"""TOML from outside: settings and site files."""

import re
import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from powerhall.runtime.decode.bytes_in import read_file, utf8
from powerhall.runtime.decode.limits import MOST_DEPTH, MOST_TOML_BYTES
from powerhall.runtime.decode.plain_data import check_plain
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.refusals import DecHook, refusal

__all__ = ["convert", "decode_toml", "read_toml"]

T = TypeVar("T")

_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MOST_DEPTH}}}", re.ASCII)
"""A dotted key of so many parts would take tomllib a time that rises with the square of its length."""
_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_QUOTED_KEY = re.compile(rf"(?:^|[{{,])[ \t\[]*+(?:{_PART}[ \t]*+\.[ \t]*+){{{MOST_DEPTH}}}", re.MULTILINE)
"""The same with quoted parts, only where a key begins: elsewhere the search itself would take that time."""


def convert(data: object, kind: type[T], source: str, dec_hook: DecHook | None = None) -> T:
    """Turn plain data into `kind`; an invalid value raises Rejected with source, field, value and allowed values."""
    try:
        return msgspec.convert(data, kind, strict=True, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        raise Rejected(f"{source}: {refusal(data, kind, error, dec_hook)}") from None


def decode_toml(body: bytes, source: str) -> dict[str, object]:
    """Decode TOML into plain data of limited depth and finite numbers; anything else raises ConfigError or Rejected."""
    try:
        text = utf8(body, f"{source}: not valid TOML")
    except Rejected as error:
        raise ConfigError(str(error)) from None
    if found := _LONG_KEY.search(text) or _LONG_QUOTED_KEY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(f"{source}: not valid TOML: line {line}: a key of more than {MOST_DEPTH} parts")
    try:
        data: dict[str, object] = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{source}: not valid TOML: nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, or a whole number of thousands of digits
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    check_plain(data, source)
    return data


def read_toml(path: str | Path, kind: type[T], dec_hook: DecHook | None = None) -> T:
    """Read a TOML file into `kind`; a missing, malformed or unfitting file raises ConfigError or Rejected."""
    data = decode_toml(read_file(path, MOST_TOML_BYTES), str(path))
    return convert(data, kind, str(path), dec_hook)
