"""The site key, from which every node's lease key is derived."""

from pathlib import Path

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.settings import Secret

__all__ = ["read_site_key"]


def read_site_key(path: str | Path) -> bytes:
    """Read the site key: at least 64 hex digits; anything else raises ConfigError without showing it."""
    try:
        key = bytes.fromhex(Secret(path).read())
    except ValueError:
        key = b""
    if len(key) < 32:
        raise ConfigError(f"{path}: site key: must be at least 64 hex digits")
    return key
