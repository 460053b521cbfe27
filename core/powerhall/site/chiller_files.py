"""Curve sets of chillers from JSON of our own form, or CSV in the columns of the Modelica Buildings library.

That library has the data sets of EnergyPlus as records: `QEva_flow_nominal`, `COP_nominal`, `capFunT`, `EIRFunT`,
`EIRFunPLR` and limits in K, such as `273.15+8.89`; a kind `ReformulatedEIR` has those of the condenser's leaving water.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from powerhall.physics.plants.chiller_curves import ChillerCurves
from powerhall.runtime.decode.csv_table import read_csv
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_json

__all__ = ["checked_curves", "read_curves"]

_ZERO_C = 273.15
_WATER_J_PER_KG_K = 4186.0
Row = Mapping[str, str | None]
T = TypeVar("T")


class _CurveSets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON file of curve sets."""

    chillers: tuple[ChillerCurves, ...]


def checked_curves(curves: ChillerCurves, source: str, field: str) -> ChillerCurves:
    """Return the curve set; one that is out of range raises Rejected with the reason."""
    if wrong := curves.check():
        raise Rejected.field(source, field, curves.name, wrong)
    return curves


def read_curves(path: Path, name: str | None) -> ChillerCurves:
    """Read the curve set of this name, or the only one; a wrong file or name raises Rejected with one line."""
    if path.suffix.lower() == ".json":
        listed = [(curves.name, curves) for curves in read_json(path, _CurveSets).chillers]
        return checked_curves(_chosen(path, listed, name), str(path), "chillers")
    rows = [(row.get("name") or f"line {line}", (line, row)) for line, row in read_csv(path)]
    line, row = _chosen(path, rows, name)
    source = f"{path}: line {line}"
    return checked_curves(_from_row(row, source), source, "name")


def _chosen(path: Path, listed: list[tuple[str, T]], name: str | None) -> T:
    found = [entry for entry_name, entry in listed if name in (None, entry_name)]
    if len(found) == 1:
        return found[0]
    if name is None:
        raise Rejected.field(str(path), "curve_set", None, f"must name one of the {len(listed)} curve sets of the file")
    allowed = "must be the name of one curve set" + (f", such as {listed[0][0]!r}" if listed else "")
    raise Rejected.field(str(path), "curve_set", name, allowed)


def _from_row(row: Row, source: str) -> ChillerCurves:
    reformulated = (row.get("kind") or "").startswith("Reform")
    side = "TConLvg" if reformulated else "TConEnt"
    cop = _number(row, "COP_nominal", source)
    rise_k = 0.0
    if reformulated:
        flow_w_per_k = _WATER_J_PER_KG_K * max(_number(row, "mCon_flow_nominal", source), 1e-3)
        rise_k = abs(_number(row, "QEva_flow_nominal", source)) * (1.0 + 1.0 / max(cop, 0.1)) / flow_w_per_k
    fields = {
        "name": row.get("name") or "",
        "type": "reformulated_eir" if reformulated else "electric_eir",
        "cop": cop,
        "capacity_f_temp": _vector(row, "capFunT", source),
        "eir_f_temp": _vector(row, "EIRFunT", source),
        "eir_f_plr": _vector(row, "EIRFunPLR", source),
        "evaporator_temp_c": _range_c(row, "TEvaLvg", source),
        "condenser_temp_c": _range_c(row, side, source),
        "part_load": (_number(row, "PLRMin", source), _number(row, "PLRMax", source)),
        "condenser_rise_k": rise_k,
    }
    try:
        return msgspec.convert(fields, ChillerCurves)
    except msgspec.ValidationError as error:
        raise Rejected(f"{source}: {error}") from None


def _range_c(row: Row, name: str, source: str) -> tuple[float, float]:
    low, high = (round(_number(row, f"{name}{end}", source) - _ZERO_C, 6) for end in ("Min", "Max"))
    return low, high


def _vector(row: Row, name: str, source: str) -> tuple[float, ...]:
    parts = (row.get(name) or "").strip().removeprefix("{").removesuffix("}").split(",")
    return tuple(_finite(part, name, source) for part in parts)


def _number(row: Row, name: str, source: str) -> float:
    """Return a cell's number: a plain one, or a product or a sum of plain ones."""
    text = (row.get(name) or "").strip()
    return math.prod(sum(_terms(part, name, source)) for part in text.split("*"))


def _terms(text: str, name: str, source: str) -> Iterator[float]:
    whole = text.replace("E+", "E").replace("e+", "e")
    return (_finite(part, name, source) for part in whole.split("+"))


def _finite(text: str, name: str, source: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e12:
        raise Rejected.field(source, name, text.strip(), "must be a number")
    return value
