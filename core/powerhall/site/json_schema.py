"""JSON Schema of site.toml, from the structs that read it: for editors that complete and check TOML."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import msgspec

from powerhall.site.quantities import Quantity
from powerhall.site.site_tables import SiteFile

__all__ = ["site_schema"]

Json = dict[str, object]
TypeHint = object
_PLAIN: dict[TypeHint, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def site_schema() -> Json:
    """Return the JSON Schema (2020-12) of site.toml: keys, types, ranges and choices of every table."""
    tables: Json = {}
    root = _schema(SiteFile, tables)
    head: Json = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Powerhall site.toml"}
    return {**head, **root, "$defs": tables}


def _schema(hint: TypeHint, tables: Json) -> Json:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is None:
        return _plain(hint, tables)
    if origin is Annotated:
        return _schema(inside[0], tables) | _bounds(inside[1:])
    if origin is Literal:
        return {"enum": list(inside)}
    if origin in (Union, UnionType):
        arms = [_schema(arm, tables) for arm in inside if arm is not NoneType]
        return arms[0] if len(arms) == 1 else {"anyOf": arms}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(inside[1], tables)}
    return _array(inside, tables)


def _array(inside: tuple[TypeHint, ...], tables: Json) -> Json:
    if len(inside) == 1 or inside[-1] is Ellipsis:
        return {"type": "array", "items": _schema(inside[0], tables)}
    return {"type": "array", "prefixItems": [_schema(part, tables) for part in inside], "minItems": len(inside)}


def _plain(hint: TypeHint, tables: Json) -> Json:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _table(hint, tables)
    if isinstance(hint, type) and issubclass(hint, Quantity):
        return {"type": "string", "description": (hint.__doc__ or "").partition("\n")[0], "examples": [hint.example]}
    return {"type": _PLAIN[hint]}


def _bounds(extras: tuple[object, ...]) -> Json:
    found: Json = {}
    for meta in extras:
        if isinstance(meta, msgspec.Meta):
            limits = {"minimum": meta.ge, "exclusiveMinimum": meta.gt, "maximum": meta.le, "exclusiveMaximum": meta.lt}
            found |= {name: limit for name, limit in limits.items() if limit is not None}
    return found


def _table(kind: type[msgspec.Struct], tables: Json) -> Json:
    """Describe a table once, under its name; unknown keys are refused, as the reader refuses them."""
    if kind.__name__ not in tables:
        tables[kind.__name__] = {}  # for a table within itself
        fields = msgspec.structs.fields(kind)
        tables[kind.__name__] = {
            "type": "object",
            "description": (kind.__doc__ or "").partition("\n")[0],
            "properties": {field.encode_name: _schema(field.type, tables) for field in fields},
            "required": [field.encode_name for field in fields if field.required],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}
