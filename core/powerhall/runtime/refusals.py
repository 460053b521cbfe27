"""Refusal of data that does not fit its struct, in one line: the field with its path, its value, and allowed values.

msgspec names a struct's fields and list indexes, but neither the key of a table, nor the value, nor the choices.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import msgspec

__all__ = ["DecHook", "TypeHint", "allowed", "alternatives", "refusal"]

TypeHint = object
"""An annotation of a struct's field."""
DecHook = Callable[[type, object], object]

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_SCALARS = (str, int, float, bool)
_MOST_VALUE_CHARS = 200


def refusal(data: object, kind: TypeHint, error: msgspec.ValidationError, dec_hook: DecHook | None = None) -> str:
    """Return `field: value: what is allowed` for plain data that msgspec has refused to convert to `kind`."""
    message, _, path = str(error).partition(" - at `")
    if not path.startswith("$"):  # about the key of a table
        return f"{path.rstrip('`') or 'file'}: {_lowered(message)}"
    where, value, hint = _walk(data, kind, path.rstrip("`"), dec_hook)
    shown = f": {value!r}"[:_MOST_VALUE_CHARS] if isinstance(value, _SCALARS) else ""
    return f"{where or 'file'}{shown}: {allowed(hint, message)}"


def _lowered(message: str) -> str:
    return f"{message[:1].lower()}{message[1:]}"


def _walk(data: object, kind: TypeHint, path: str, dec_hook: DecHook | None) -> tuple[str, object, TypeHint]:
    """Follow msgspec's path; return the field as people write it, its value, and its annotation (None if unknown)."""
    where, value, hint = "", data, kind
    for name, index in _STEP.findall(path):
        if index == "...":
            key, value, hint = _key(value, hint, dec_hook)
            where += f".{key}"
        elif index:
            value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
            hint = next((get_args(arm)[0] for arm in alternatives(hint) if get_origin(arm) in (list, tuple)), None)
            where += f"[{index}]"
        else:
            value = value.get(name) if isinstance(value, dict) else None
            hint = _field(hint, name)
            where += f".{name}"
    return where.lstrip("."), value, hint


def _key(value: object, hint: TypeHint, dec_hook: DecHook | None) -> tuple[str, object, TypeHint]:
    """Return the key of a table whose value does not fit, with value and annotation."""
    inside = next((get_args(arm)[1] for arm in alternatives(hint) if get_origin(arm) in (dict, Mapping)), None)
    for key, entry in value.items() if isinstance(value, dict) else ():
        try:
            msgspec.convert(entry, inside, strict=True, dec_hook=dec_hook)
        except msgspec.ValidationError:
            return str(key), entry, inside
    return "...", None, inside


def _field(hint: TypeHint, name: str) -> TypeHint:
    for arm in alternatives(hint):
        if isinstance(arm, type) and issubclass(arm, msgspec.Struct):
            return next((f.type for f in msgspec.structs.fields(arm) if f.encode_name == name), None)
    return None


def alternatives(hint: TypeHint) -> Iterator[TypeHint]:
    """Yield the alternatives of an annotation without None and without `Annotated`."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        for arm in get_args(hint):
            yield from alternatives(arm)
    elif hint is not NoneType:
        yield hint


def allowed(hint: TypeHint, message: str) -> str:
    """Return what an annotation allows, for a message of msgspec about a value that it does not."""
    choices = [str(choice) for arm in alternatives(hint) for choice in _choices(arm)]
    if choices and message.startswith("Invalid enum value"):
        return f"must be one of {', '.join(choices)}"
    bounds = [meta for meta in _metas(hint) if meta.ge is not None and meta.le is not None]
    if bounds and re.match(r"Expected `(int|float)` [<>]", message):
        number = "whole number" if message.startswith("Expected `int`") else "number"
        return f"must be a {number} from {bounds[0].ge:g} to {bounds[0].le:g}"
    return _lowered(message)


def _choices(arm: TypeHint) -> tuple[object, ...]:
    if get_origin(arm) is Literal:
        return get_args(arm)
    return tuple(member.value for member in arm) if isinstance(arm, type) and issubclass(arm, Enum) else ()


def _metas(hint: TypeHint) -> Iterator[msgspec.Meta]:
    if get_origin(hint) is Annotated:
        yield from (extra for extra in get_args(hint)[1:] if isinstance(extra, msgspec.Meta))
    elif get_origin(hint) in (Union, UnionType):
        for arm in get_args(hint):
            yield from _metas(arm)
