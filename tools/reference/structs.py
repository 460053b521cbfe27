"""Tables of settings from msgspec structs: key, type, default, and the docstring below each field."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect as types

from powerhall.site.quantities import Quantity

Limits = Mapping[str, str]
"""What the reader checks beyond a field's type, by the dotted path of the field."""


def field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstring of each field, those of base classes included."""
    found: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        if issubclass(cls, msgspec.Struct) and cls is not msgspec.Struct:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
            assert isinstance(node, ast.ClassDef)
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    found |= {field.target.id: doc} if (doc := _text(text)) else {}
    return found


def _text(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def nested(kind: types.Type) -> list[type[msgspec.Struct]]:
    """Return the structs that a field of this type holds: itself, in an array, as values of a table, or a union."""
    if isinstance(kind, types.Metadata):
        return nested(kind.type)
    if isinstance(kind, types.StructType):
        return [kind.cls]
    if isinstance(kind, types.VarTupleType):
        return nested(kind.item_type)
    if isinstance(kind, types.DictType):
        return nested(kind.value_type)
    if isinstance(kind, types.UnionType):
        return [cls for entry in kind.types for cls in nested(entry)]
    return []


def shape(kind: types.Type) -> str:
    """Return how a value of this type is written in TOML, with its choices or range."""
    match kind:
        case types.Metadata(type=inner):
            text = shape(inner)
        case types.CustomType(cls=quantity) if issubclass(quantity, Quantity):
            text = " ".join(re.findall("[A-Z][a-z]*", quantity.__name__)).lower()
            text += f', such as `"{quantity.example}"`'
        case types.UnionType(types=several):
            text = " or ".join(shape(entry) for entry in several if not isinstance(entry, types.NoneType))
        case types.LiteralType(values=values):
            text = ", ".join(f"`{value}`" for value in values)
        case types.BoolType():
            text = "`true` or `false`"
        case types.IntType() | types.FloatType():
            text = _number(kind)
        case types.VarTupleType() | types.TupleType():
            text = _array(kind)
        case types.DictType(value_type=types.StructType()):
            text = "tables by name"
        case types.DictType(value_type=value):
            text = f"table: {shape(value)} by name"
        case types.StructType():
            text = "table"
        case _:
            text = "text"
    return text


def _array(kind: types.VarTupleType | types.TupleType) -> str:
    if isinstance(kind, types.TupleType):
        return f"array of {len(kind.item_types)}: {shape(kind.item_types[0])}"
    if isinstance(kind.item_type, types.StructType | types.UnionType):
        return "array of tables"
    return f"array: {shape(kind.item_type)}"


def _number(kind: types.IntType | types.FloatType) -> str:
    word = "integer" if isinstance(kind, types.IntType) else "number"
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else kind.lt
    if low is None and high is None:
        return word
    if high is None:
        return f"{word}, at least {low:g}" if kind.ge is not None else f"{word} above {low:g}"
    above = "above " if kind.ge is None and low is not None else ""
    return f"{word} from {above}{low:g} to {high:g}"


def _default(field: types.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, Quantity):
        return f"`{value.text}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or (not isinstance(value, int | float) and not value) or isinstance(value, msgspec.Struct):
        return ""
    return f"`{value!r}`" if not isinstance(value, str) else f"`{value}`"


def rows(struct: type[msgspec.Struct], prefix: str = "", limits: Limits | None = None) -> Iterator[str]:
    """Yield a table row for each field; a field without a docstring raises LookupError."""
    docs = field_docs(struct)
    kind = types.type_info(struct)
    assert isinstance(kind, types.StructType)
    for field in kind.fields:
        if field.encode_name not in docs:
            raise LookupError(f"{struct.__name__}.{field.encode_name}: has no docstring below it")
        kinds = shape(field.type)
        kinds += (limits or {}).get(f"{prefix}{field.encode_name}", "")
        text = cell(docs[field.encode_name])
        yield f"| `{field.encode_name}` | {kinds} | {_default(field)} | {text} |"


def cell(text: str) -> str:
    """Return text that stands in one cell of a table."""
    return text.replace("|", "\\|")


def table(struct: type[msgspec.Struct], prefix: str = "", limits: Limits | None = None) -> str:
    """Return the table of a struct's fields."""
    head = "| key | value | default | meaning |\n|---|---|---|---|\n"
    return head + "\n".join(rows(struct, prefix, limits)) + "\n"


def summary(struct: type[Any]) -> str:
    """Return the docstring of a struct."""
    return inspect.cleandoc(struct.__doc__ or "")
