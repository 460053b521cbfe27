"""NVML fields that a site adds by a file, one line each, without code: `gpu_extra`, a point per field.

    # field id[:scope], name, unit, how many of NVML's units make one (default 1)
    170, c2c_links
    274, edpp_multiplier, %
    255, smoothing_floor, W
    186:1, module_power, W, 1000

Field ids are those of nvml.h (NVML_FI_...), for `nvmlDeviceGetFieldValues`. The site's names stand for nothing that the
agent knows: only what drivers show in place of a value is left out.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from powerhall.runtime.decode.bytes_in import read_text
from powerhall.runtime.decode.numbers_in import digits, finite
from powerhall.runtime.errors import Rejected
from powerhall_agent.base.encoder import Fields
from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.fields import FieldSpec

__all__ = ["ExtraField", "GpuExtra", "read_extra_fields"]

_MOST_FIELDS: Final = 100
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_ID: Final = 10_000
_NO_VALUE: Final = frozenset(map(float, (0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)))
"""What drivers show in place of a value, in NVML's units."""


@dataclass(frozen=True, slots=True)
class ExtraField:
    """One line of the file."""

    spec: FieldSpec
    unit: str


def read_extra_fields(path: Path) -> list[ExtraField]:
    """Read the file; a line that cannot be understood raises Rejected with file, line and what is allowed."""
    found: list[ExtraField] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = [word.strip() for word in line.partition("#")[0].split(",")]
        if words != [""]:
            found.append(_field(words, f"{path}:{number}"))
    names = [field.spec.name for field in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise Rejected(f"{path}: {double!r}: must be there once")
    if len(found) > _MOST_FIELDS:
        raise Rejected(f"{path}: {len(found)} fields: at most {_MOST_FIELDS} are read")
    return found


def _field(words: Sequence[str], source: str) -> ExtraField:
    if not 2 <= len(words) <= 4:
        raise Rejected(f"{source}: must be 'FIELD_ID[:SCOPE], NAME[, UNIT[, NVML_UNITS_IN_ONE]]'")
    field_text, _, scope_text = words[0].partition(":")
    field_id, scope_id = digits(field_text), digits(scope_text or "0")
    if field_id is None or scope_id is None or not 0 < field_id < _MOST_ID:
        raise Rejected.field(source, "field id", words[0], f"must be 1 to {_MOST_ID - 1}, with a scope as in 186:1")
    if _NAME.fullmatch(words[1]) is None:
        raise Rejected.field(source, "name", words[1], "must be lower-case letters, digits and '_', at most 64")
    try:
        per = finite(words[3]) if len(words) > 3 else 1.0
    except ValueError:
        per = 0.0
    if per <= 0:
        raise Rejected.field(source, "units", words[3], "must be a number above 0, such as 1000 for mW to W")
    return ExtraField(FieldSpec(words[1], field_id, scope_id, per), words[2] if len(words) > 2 else "")


class GpuExtra:
    """Collects `gpu_extra` of one GPU."""

    def __init__(self, driver: Driver, gpu: Gpu, fields: Sequence[ExtraField]) -> None:
        """Prepare the batch; fields that the driver does not have are dropped at the first read."""
        self._batch = driver.batch(gpu, [field.spec for field in fields])
        self._fields = {field.spec.name: field for field in fields}

    def collect(self) -> Fields:
        """Read all fields, by their names."""
        return self._batch.read()

    def points(self, fields: Mapping[str, float | str], sensors: SensorLog) -> Iterator[tuple[str, Fields]]:
        """Yield name, and value and unit as they are stored; what stands for no value is dropped and counted."""
        for name, value in fields.items():
            field = self._fields[name]
            shown = float(value) * field.spec.per
            if not math.isfinite(shown) or float(round(shown)) in _NO_VALUE:
                sensors.drop(f"gpu_extra {name}", f"{shown:.10g} is no reading")
                continue
            sensors.believe(f"gpu_extra {name}")
            yield name, {"value": value, "unit": field.unit} if field.unit else {"value": value}
