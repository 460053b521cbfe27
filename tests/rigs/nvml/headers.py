"""Headers of the simulated C library, made from the agent's own tables: getters and their order, and field ids."""

from pathlib import Path

from powerhall.store.gpu_fields import FAST_FIELDS, FULL_FIELDS, SLOW_FIELDS, FieldValue
from powerhall_agent.simulate import layout as at

__all__ = ["write_headers"]

_TYPES = {"u32": "unsigned", "u64": "uint64_t"}


def write_headers(folder: Path) -> None:
    """Write `getters.h` for nvmlsim.c and `field_ids.h` for abi.c."""
    names = ", ".join(f"G_{name}" for name in at.GETTERS)
    scalars = [f"SCALAR({symbol}, {_TYPES[kind]}, G_{name})" for symbol, (name, kind) in at.SCALAR_GETTERS.items()]
    lines = [
        f"enum {{ {names} }};",
        "#define SCALAR_GETTERS \\",
        *(f"    {line} \\" for line in scalars[:-1]),
        f"    {scalars[-1]}",
        "",
    ]
    (folder / "getters.h").write_text("\n".join(lines))
    (folder / "field_ids.h").write_text("".join(f"SAME_NUMBER(NVML_FI_{c}, {i});\n" for c, i in fixed_ids().items()))


def fixed_ids() -> dict[str, int]:
    """Return the ids by their constants, without those that moved between drivers."""
    sources = [source for row in (*FAST_FIELDS, *FULL_FIELDS, *SLOW_FIELDS) for source in row.sources]
    return {s.constant: s.field_id for s in sources if isinstance(s, FieldValue) and not s.since}
