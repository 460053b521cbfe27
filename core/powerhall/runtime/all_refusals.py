"""Every value of plain data that does not fit a struct, in one pass: for commands that check a file as a whole."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import get_args, get_origin

import msgspec

from powerhall.runtime.refusals import DecHook, TypeHint, allowed, alternatives, refusal

__all__ = ["all_refusals"]


def all_refusals(
    data: object, kind: TypeHint, dec_hook: DecHook | None = None, path: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the path of each unfitting, unknown or absent value, and `path: value: what is allowed`.

    An unknown key is shown with the keys that the table has, the nearest one first.
    """
    for arm in alternatives(kind):
        if isinstance(arm, type) and issubclass(arm, msgspec.Struct) and isinstance(data, dict):
            yield from _table(data, arm, dec_hook, path)
            return
        if get_origin(arm) in (dict, Mapping) and isinstance(data, dict):
            for key, entry in data.items():
                yield from all_refusals(entry, get_args(arm)[1], dec_hook, _joined(path, key))
            return
        if get_origin(arm) in (list, tuple) and isinstance(data, list) and get_args(arm)[-1] is Ellipsis:
            for number, entry in enumerate(data):
                yield from all_refusals(entry, get_args(arm)[0], dec_hook, f"{path}[{number}]")
            return
    try:
        msgspec.convert(data, kind, strict=True, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        if " - at `" not in str(error):
            yield path, f"{path}{_shown(data)}: {allowed(kind, str(error))}"
            return
        inner, _, rest = refusal(data, kind, error, dec_hook).partition(": ")
        yield path, f"{path}{'' if inner.startswith('[') else '.'}{inner}: {rest}"


def _table(
    data: Mapping[str, object], kind: type[msgspec.Struct], dec_hook: DecHook | None, path: str
) -> Iterator[tuple[str, str]]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key in data:
        if key not in fields:
            near = get_close_matches(key, fields, n=1)
            keys = ", ".join([*near, *(name for name in fields if name not in near)])
            yield _joined(path, key), f"{_joined(path, key)}: unknown key: must be one of {keys}"
    for name, field in fields.items():
        where = _joined(path, name)
        if name in data:
            yield from all_refusals(data[name], field.type, dec_hook, where)
        elif field.required:
            yield where, f"{where}: absent: is required"


def _joined(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _shown(data: object) -> str:
    """Show a value that the refusal of a bare value does not name."""
    return f": {data!r}"[:200] if isinstance(data, str | int | float | bool) else ""
