"""Opens the store of a URL, by one table of the kinds of stores.

To add a kind: write a module with a `KIND` (a StoreKind) and name it in `STORE_KINDS`. A module is imported when a
store of its kind is opened.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Final

from powerhall.runtime.errors import ConfigError
from powerhall.store.base import Store, StoreKind

__all__ = ["STORE_KINDS", "existing_store", "open_store", "scheme_of", "store_kind"]

STORE_KINDS: Final[Mapping[str, str]] = {
    "sqlite": "powerhall.store.sqlite",
    "influxdb": "powerhall.store.influxdb.store",
    "halls": "powerhall.store.hall_stores",
}
"""URL scheme to the module of its kind."""


def open_store(url: str) -> Store:
    """Open the store of this URL; nothing is sent to a server before the first read or write."""
    return _opened(store_kind(url), url, open_store)


def existing_store(url: str, advice: str = "") -> Store:
    """Open a store to read from: a store in a file must be there, and is not made.

    An absent one raises ConfigError, whose text ends with the `advice`.
    """
    kind = store_kind(url)
    if kind.file is not None and not (file := kind.file(url)).exists():
        what = "there is no such file" if file.parent.is_dir() else f"folder {file.parent} does not exist"
        raise ConfigError(f"store URL: {url!r}: {what}{advice and '; '}{advice}")
    return _opened(kind, url, lambda part: existing_store(part, advice))


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


def _opened(kind: StoreKind, url: str, opener: Callable[[str], Store]) -> Store:
    if kind.join is not None:
        return kind.join(url, opener, lambda: open_store("sqlite:///:memory:"))
    assert kind.open is not None  # a kind has one or the other
    return kind.open(url)


def _kind(scheme: str) -> StoreKind:
    kind: StoreKind = importlib.import_module(STORE_KINDS[scheme]).KIND
    return kind
