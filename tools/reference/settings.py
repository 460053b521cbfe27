"""The pages of settings and of the site file: a written head, then one table per struct."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import inspect as types

from powerhall.physics.plants.kinds import PLANT_KINDS
from powerhall.site.site_tables import SiteFile
from powerhall_agent.commands.cap import CapperSettings
from powerhall_agent.facility.gateway_settings import FacilitySettings
from powerhall_agent.settings.agent_settings import AgentSettings, OutputSettings, ShipSettings, SpoolSettings
from powerhall_optimizer.inputs import round_settings
from powerhall_optimizer.schedulers.registry import read_settings
from tools.reference import structs

HEADS = Path(__file__).with_name("heads")
_ELSEWHERE = (SpoolSettings, ShipSettings, OutputSettings)
"""Tables of agent.toml that facility.toml shares: described once."""


def _path(parent: str, field: types.Field) -> str:
    """Return the header of a nested table: `[a]`, `[[a]]` for an array, `[a.NAME]` for a table of tables."""
    inside = parent.strip("[]")
    name = f"{inside}.{field.encode_name}" if inside else field.encode_name
    kind = field.type
    if isinstance(kind, types.UnionType):
        kind = next(entry for entry in kind.types if not isinstance(entry, types.NoneType))
    if isinstance(kind, types.VarTupleType):
        return f"[[{name}]]"
    return f"[{name}.NAME]" if isinstance(kind, types.DictType) else f"[{name}]"


def sections(
    struct: type[msgspec.Struct], path: str, limits: structs.Limits | None = None, skip: tuple[type, ...] = ()
) -> Iterator[str]:
    """Yield a section for the struct and, depth first, one for every struct in it."""
    tag = struct.__struct_config__.tag
    note = f", {struct.__struct_config__.tag_field} = {tag!r}".replace("'", '"') if tag is not None else ""
    yield f"### `{path}`{note}\n" if path else "### Top level\n"
    yield f"{structs.summary(struct)}\n"
    prefix = f"{path.strip('[]')}." if path else ""
    yield structs.table(struct, prefix, limits)
    kind = types.type_info(struct)
    assert isinstance(kind, types.StructType)
    for field in kind.fields:
        for cls in structs.nested(field.type):
            if cls not in skip:
                yield from sections(cls, _path(path, field), limits, skip)


def _page(head: str, *parts: tuple[str, Iterator[str]]) -> str:
    text = (HEADS / head).read_text(encoding="utf-8")
    for title, tables in parts:
        text += f"\n## {title}\n\n" + "\n".join(tables)
    return text.rstrip() + "\n"


def _schedulers() -> Iterator[str]:
    """Yield the sections of every registered scheduler."""
    for name, defaults in read_settings(None).items():
        yield from sections(type(defaults), f"[{name}]")


def site_file(_root: Path) -> str:
    """Return docs/reference/site-file.md."""
    kinds = ": " + ", ".join(f"`{name}`" for name in PLANT_KINDS)
    return _page("site-file.md", ("Tables of site.toml", sections(SiteFile, "", {"halls.cooling.kind": kinds})))


def agent_settings(_root: Path) -> str:
    """Return docs/reference/agent-settings.md."""
    return _page(
        "agent-settings.md",
        ("agent.toml", sections(AgentSettings, "")),
        ("capper.toml", sections(CapperSettings, "")),
        ("facility.toml", sections(FacilitySettings, "", skip=_ELSEWHERE)),
    )


def optimizer_settings(_root: Path) -> str:
    """Return docs/reference/optimizer-settings.md."""
    ranges = round_settings._RANGES  # noqa: SLF001 - the ranges that read_settings checks
    limits = {name: f" from {low:g} to {high:g}" for name, (low, high) in ranges.items()}
    return _page(
        "optimizer-settings.md",
        ("Settings of a round", sections(round_settings.RoundSettings, "", limits)),
        ("Settings of the schedulers", _schedulers()),
    )
