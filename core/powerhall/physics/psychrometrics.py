"""Moist air: wet bulb, enthalpy and pressure, from PsychroLib (ASHRAE Handbook of Fundamentals, chapter 1)."""

import sys
from functools import lru_cache
from types import ModuleType

__all__ = ["SEA_LEVEL_PA", "latent_share", "preload", "pressure_pa", "saturated_enthalpy", "wet_bulb_c"]

SEA_LEVEL_PA = 101_325.0
_DRY_BULB_C = (-95.0, 60.0)
_PRESSURE_PA = (50_000.0, 110_000.0)


@lru_cache(maxsize=1)
def _library() -> ModuleType:
    """Import PsychroLib at its first use, and without numba: it would compile itself for seconds, for single values."""
    numba = sys.modules.get("numba")
    sys.modules["numba"] = None  # type: ignore[assignment]
    try:
        import psychrolib
    finally:
        if numba is None:
            del sys.modules["numba"]
        else:
            sys.modules["numba"] = numba
    psychrolib.SetUnitSystem(psychrolib.SI)
    return psychrolib  # type: ignore[no-any-return]


def preload() -> None:
    """Load the library now: a module that needs it calls this on import, before there are threads."""
    _library()


def pressure_pa(altitude_m: float) -> float:
    """Return the pressure of the standard atmosphere in Pa at an altitude in m, -500 to 9,000 m at most."""
    return float(_library().GetStandardAtmPressure(min(max(altitude_m, -500.0), 9_000.0)))


@lru_cache(maxsize=20_000)
def wet_bulb_c(dry_bulb_c: float, humidity_percent: float, pressure_pa: float = SEA_LEVEL_PA) -> float:
    """Return the thermodynamic wet bulb in degC from dry bulb in degC, relative humidity in percent, pressure in Pa.

    Values outside -95 to 60 degC, 0 to 100 % or 50 to 110 kPa are moved to the nearest bound.
    """
    dry = min(max(dry_bulb_c, _DRY_BULB_C[0]), _DRY_BULB_C[1])
    humidity = min(max(humidity_percent, 0.0), 100.0) / 100.0
    pressure = min(max(pressure_pa, _PRESSURE_PA[0]), _PRESSURE_PA[1])
    return min(dry, float(_library().GetTWetBulbFromRelHum(dry, humidity, pressure)))


@lru_cache(maxsize=20_000)
def saturated_enthalpy(temp_c: float) -> float:
    """Return the enthalpy of saturated air in J per kg of dry air at sea level, from its temperature in degC."""
    return float(_library().GetSatAirEnthalpy(min(max(temp_c, _DRY_BULB_C[0]), _DRY_BULB_C[1]), SEA_LEVEL_PA))


@lru_cache(maxsize=20_000)
def latent_share(dry_bulb_c: float, wet_bulb_c: float, leaving_c: float) -> float:
    """Return the latent part of the heat that air takes up which leaves saturated at `leaving_c`, from 0 to 2.

    Above 1 in air that is hotter than the water. 1 where such air would take up no heat.
    """
    dry = min(max(dry_bulb_c, _DRY_BULB_C[0]), _DRY_BULB_C[1])
    out_c = min(max(leaving_c, _DRY_BULB_C[0]), _DRY_BULB_C[1])
    wet = min(max(wet_bulb_c, _DRY_BULB_C[0]), dry)
    enters = float(_library().GetHumRatioFromTWetBulb(dry, wet, SEA_LEVEL_PA))
    leaves = float(_library().GetSatHumRatio(out_c, SEA_LEVEL_PA))
    taken_up = saturated_enthalpy(out_c) - float(_library().GetMoistAirEnthalpy(dry, enters))
    if taken_up <= 0:
        return 1.0
    vapour = float(_library().GetMoistAirEnthalpy(out_c, leaves) - _library().GetMoistAirEnthalpy(out_c, enters))
    return min(max(vapour / taken_up, 0.0), 2.0)
