"""Opens the store of a URL, by one table of the kinds of stores.

To add a kind: write a module with a `KIND` (a StoreKind) and name it in `STORE_KINDS`. A module is imported when a
store of its kind is opened.
"""

import importlib
from collections.abc import Mapping
from typing import Final

from powerhall.runtime.errors import ConfigError
from powerhall.store.base import Store, StoreKind

__all__ = ["STORE_KINDS", "open_store", "scheme_of", "store_kind"]

STORE_KINDS: Final[Mapping[str, str]] = {
    "sqlite": "powerhall.store.sqlite",
    "influxdb": "powerhall.store.influxdb.store",
}
"""URL scheme to the module of its kind."""


def open_store(url: str) -> Store:
    """Open the store of this URL; nothing is sent to a server before the first read or write."""
    return store_kind(url).open(url)


def store_kind(url: str) -> StoreKind:
    """Return the kind of a URL's store; ConfigError names the forms that are allowed."""
    scheme = scheme_of(url)
    if scheme not in STORE_KINDS or not url.startswith(_kind(scheme).prefix):
        forms = " or ".join(_kind(name).form for name in STORE_KINDS)
        raise ConfigError(f"store URL: {url.partition('?')[0]!r}: must be {forms}")
    return _kind(scheme)


def scheme_of(url: str) -> str:
    """Return the scheme of a store URL, "" where it has none."""
    scheme, colon, _ = url.partition("://")
    return scheme if colon else ""


def _kind(scheme: str) -> StoreKind:
    kind: StoreKind = importlib.import_module(STORE_KINDS[scheme]).KIND
    return kind
