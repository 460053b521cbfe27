"""Settings: TOML into frozen structs with defaults; unknown keys refused by name; secrets by file, never shown."""

import os
import unicodedata
from pathlib import Path
from typing import Final

from powerhall.runtime.decode.bytes_in import read_file, utf8
from powerhall.runtime.decode.json_data import read_json
from powerhall.runtime.decode.limits import MOST_SECRET_BYTES
from powerhall.runtime.decode.toml_data import convert, read_toml
from powerhall.runtime.errors import ConfigError, Rejected

__all__ = ["Secret", "convert", "read_json", "read_toml"]

_CREDENTIALS: Final = "$CREDENTIALS_DIRECTORY/"
_QUOTES: Final = ('"', "'", "`")
_LINE: Final = "must be one line, the secret alone"
_BARE: Final = "must be one line of ASCII, the token alone: no comment, no quotes, no 'Token' or 'Bearer' before it"


class Secret:
    """A secret kept in a file (systemd LoadCredential or a mounted secret); its text never shows in repr or logs.

    The file is read on each call of `read`, so that a rotated token is picked up without a restart. A path that begins
    with `$CREDENTIALS_DIRECTORY/` lies in the folder that systemd made for this service: one setting serves many units.
    """

    def __init__(self, path: str | Path) -> None:
        text = os.fspath(path)
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
        self.path = (
            Path(folder, text.removeprefix(_CREDENTIALS)) if folder and text.startswith(_CREDENTIALS) else Path(path)
        )

    def read(self) -> str:
        """Return the secret without its trailing newline; a missing or unreadable file raises ConfigError."""
        try:
            return utf8(read_file(self.path, MOST_SECRET_BYTES), str(self.path)).strip()
        except Rejected as error:
            why = str(error).removeprefix(f"{self.path}: ").removeprefix("cannot read: ")
            unset = " (CREDENTIALS_DIRECTORY is not set: systemd sets it)" if str(self.path).startswith("$") else ""
            raise ConfigError(f"{self.path}: cannot read the secret: {why}{unset}") from None

    def read_line(self) -> str:
        """Return a password: one line without control characters ("" of an empty file); others raise ConfigError."""
        text = self.read()
        if len(text.splitlines()) > 1:
            raise ConfigError(f"{self.path}: has {len(text.splitlines())} lines: {_LINE}")
        if any(unicodedata.category(char) == "Cc" for char in text):
            raise ConfigError(f"{self.path}: has a control character: {_LINE}")
        return text

    def read_token(self) -> str:
        """Return a token for an HTTP header: one line of visible ASCII; the refusal of another never shows its text."""
        text = self.read_line()
        if not text.isascii():
            raise ConfigError(f"{self.path}: has a character that is not ASCII, such as a curly quote: {_BARE}")
        if " " in text or text[:1] in _QUOTES or text[-1:] in _QUOTES:
            raise ConfigError(f"{self.path}: has a space or a quote: {_BARE}")
        return text

    def __repr__(self) -> str:
        """Name the file, never the secret."""
        return f"Secret({str(self.path)!r})"
