"""Settings: TOML into frozen structs with defaults; unknown keys refused by name; secrets by file, never shown."""

import os
import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.refusals import DecHook, refusal

__all__ = ["Secret", "convert", "read_json", "read_toml"]

T = TypeVar("T")


class Secret:
    """A secret kept in a file (systemd LoadCredential or a mounted secret); its text never shows in repr or logs.

    The file is read on each call of `read`, so that a rotated token is picked up without a restart.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> str:
        """Return the secret without its trailing newline; a missing or unreadable file raises ConfigError."""
        try:
            return self.path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: cannot read the secret: {_reason(error)}") from None

    def __repr__(self) -> str:
        """Name the file, never the secret."""
        return f"Secret({str(self.path)!r})"


def _reason(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)


def convert(data: object, kind: type[T], source: str, dec_hook: DecHook | None = None) -> T:
    """Turn plain data into `kind`; an invalid value raises Rejected with source, field, value and allowed values."""
    try:
        return msgspec.convert(data, kind, strict=True, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        raise Rejected(f"{source}: {refusal(data, kind, error, dec_hook)}") from None


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: cannot read: {_reason(error)}") from None


def read_toml(path: str | Path, kind: type[T], dec_hook: DecHook | None = None) -> T:
    """Read a TOML file into `kind`; a missing, malformed or unfitting file raises ConfigError or Rejected."""
    try:
        data = tomllib.loads(_read(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return convert(data, kind, str(path), dec_hook)


def _plain(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None  # broken further on than where it first did not fit


def read_json(path: str | Path, kind: type[T]) -> T:
    """Read a JSON file into `kind`; a missing, truncated or unfitting file raises ConfigError or Rejected."""
    body = _read(path)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Rejected(f"{path}: {refusal(_plain(body), kind, error)}") from None
    except msgspec.DecodeError as error:
        raise Rejected(f"{path}: not valid JSON: {error}") from None
