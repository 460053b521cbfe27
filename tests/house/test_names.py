"""Names are unique: no module and no class of core has the name of another one."""

import ast
from collections import Counter

import pytest


def repeated(names):
    return sorted(name for name, count in Counter(names).items() if count > 1)


@pytest.fixture
def modules(root):
    return [path for path in (root / "core" / "powerhall").rglob("*.py") if path.stem != "__init__"]


def test_no_module_name_occurs_twice(modules):
    assert len(modules) > 30
    assert repeated(path.stem for path in modules) == []


def test_no_class_name_occurs_twice(modules):
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in modules]
    classes = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert len(classes) > 50
    assert repeated(classes) == []
