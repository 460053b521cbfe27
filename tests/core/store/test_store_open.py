"""The table of stores: every kind has URLs of its own form, and an added kind needs no other change."""

import re
import subprocess
import sys
import tomllib
import types

import grimp
import pytest

from powerhall.runtime.errors import ConfigError
from powerhall.store import open as store_open
from powerhall.store import open_store
from powerhall.store.base import StoreKind
from powerhall.store.influxdb.store import InfluxStore
from powerhall.store.open import STORE_KINDS, scheme_of, store_kind
from powerhall.store.sqlite import SqliteStore

KIND_MODULES = {scheme: ".".join(module.split(".")[:3]) for scheme, module in STORE_KINDS.items()}
"""Scheme to the module or package of `powerhall.store` that holds the kind."""


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("powerhall", cache_dir=None)


@pytest.mark.parametrize("scheme", STORE_KINDS)
def test_a_kind_imports_neither_the_table_nor_another_kind(graph, scheme):
    own = KIND_MODULES[scheme]
    others = set(KIND_MODULES.values()) - {own} | {"powerhall.store.open"}
    forbidden = {"powerhall.store"}.union(others, *map(graph.find_descendants, others))
    for module in {own} | graph.find_descendants(own):
        assert not graph.find_modules_directly_imported_by(module) & forbidden, module


def test_every_module_beside_the_kinds_has_a_layer(root, graph):
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (c for c in contracts if c["type"] == "layers" and c["containers"] == ["powerhall.store"])
    layers = {f"powerhall.store.{name}" for layer in contract["layers"] for name in layer.split(" | ")}
    assert graph.find_children("powerhall.store") - set(KIND_MODULES.values()) <= layers


@pytest.mark.parametrize("scheme", STORE_KINDS)
def test_the_guide_names_every_kind_and_its_options(root, scheme):
    kind = store_kind(f"{scheme}:///x")
    text = (root / "docs/guide/store.md").read_text()
    assert f"| `{kind.prefix}" in text
    assert [name for name in kind.options if not re.search(rf"\b{name}=", text)] == []


@pytest.mark.parametrize("scheme", STORE_KINDS)
def test_every_kind_has_urls_of_its_scheme(scheme):
    kind = store_kind(f"{scheme}:///x")
    assert kind.prefix.startswith(f"{scheme}://")
    assert kind.form.startswith(kind.prefix)
    for option in kind.options:
        assert option.isidentifier()


def test_the_scheme_decides_the_store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    assert isinstance(store, SqliteStore)
    store.close()
    store = open_store("influxdb://127.0.0.1:1/power")
    assert isinstance(store, InfluxStore)
    store.close()


@pytest.mark.parametrize(("url", "scheme"), [("sqlite:///a", "sqlite"), ("x://y/z", "x"), ("a.db", ""), ("", "")])
def test_the_scheme_of_a_url(url, scheme):
    assert scheme_of(url) == scheme


@pytest.mark.parametrize("url", ["a.db", "", "sqlite://a.db", "postgres://h/d?password=hunter2", "SQLITE:///a"])
def test_an_unknown_store_url_is_refused_with_the_allowed_forms(url):
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert all(store_kind(f"{scheme}:///x").form in str(refused.value) for scheme in STORE_KINDS)
    assert "hunter2" not in str(refused.value)


def test_a_kind_that_is_added_is_opened_and_named(monkeypatch):
    module = types.ModuleType("planted_store")
    module.KIND = StoreKind("memory://", "memory://NAME", (), lambda url: f"opened {url}")
    monkeypatch.setitem(sys.modules, "planted_store", module)
    monkeypatch.setattr(store_open, "STORE_KINDS", {**STORE_KINDS, "memory": "planted_store"})
    assert open_store("memory://a") == "opened memory://a"
    with pytest.raises(ConfigError, match="memory://NAME"):
        open_store("nothing")


def test_a_kind_is_imported_when_it_is_opened():
    code = "import sys; import powerhall.store; print([m for m in ('sqlite3', 'urllib3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
