"""Cooling: does each plant take up the heat, how much capacity does the weather leave, and what gets hot?"""

from powerhall.store import Query, Select
from powerhall_dashboards.boards.parts import (
    HALL,
    HEAT_SCALE,
    HIGH_IS_BAD,
    SITE,
    TEMPERATURE,
    chosen,
    columns,
    extreme,
    series,
    stat,
    table,
)
from powerhall_dashboards.model import Board, Panel, Step

__all__ = ["COOLING_BOARD"]

_HERE = chosen("site", "hall")


def _by_hall(*select: Select) -> Query:
    """Return columns per hall from five-minute points: cooling is slow, and there may be many halls."""
    return series("hall_5m", select, _HERE, ("hall",), every_s=300.0)


def _by_medium(medium: str) -> Query:
    heat, capacity = f"heat_{medium}_w", f"cooling_capacity_{medium}_w"
    return _by_hall(Select(heat, "max", "heat"), Select(capacity, "max", "capacity"))


_STATS = (
    stat(
        "Capacity in use",
        "Heat per cooling capacity of the most loaded medium, liquid or air, of the chosen halls.",
        extreme("hall_10s", "max", Select("cooling_load_percent", "mean", "used"), _HERE, "hall"),
        steps=HIGH_IS_BAD,
        width=6,
    ),
    stat(
        "Cooling per IT",
        "Cooling power per IT power, in percent.",
        series("hall_10s", (Select("cooling_power_w", "mean", "share", per="it_power_w", scale=100.0),), _HERE),
        width=6,
    ),
    stat(
        "Hottest GPU",
        "The highest GPU temperature in the chosen halls.",
        series("hall_10s", columns("max", hottest="temp_max_c"), _HERE),
        steps=(Step(None, "good"), Step(80.0, "warning"), Step(87.0, "critical")),
        width=6,
    ),
    stat(
        "Wet bulb",
        "Outdoor wet-bulb temperature.",
        series("weather", columns("last", wet_bulb="wet_bulb_c"), chosen("site"), every_s=300.0),
        width=6,
    ),
)

COOLING_BOARD = Board(
    "powerhall-cooling",
    "Cooling",
    "Does each plant take up the heat, how much capacity does the weather leave, and what gets hot?",
    (SITE, HALL),
    (
        ("Now", _STATS),
        (
            "Heat",
            (
                Panel(
                    "Heat against capacity",
                    "Heat that each hall gives off, and what its plants can take up in this weather: liquid and air "
                    "together, so see the most loaded medium beside it.",
                    "timeseries",
                    (_by_hall(Select("heat_w", "max", "heat"), Select("cooling_capacity_w", "max", "capacity")),),
                    12,
                    9,
                ),
                Panel(
                    "Load of the fullest medium",
                    "Heat per cooling capacity of each hall's most loaded medium: at 100 % it is full, whatever the "
                    "other one has left.",
                    "timeseries",
                    (_by_hall(Select("cooling_load_percent", "max", "used")),),
                    12,
                    9,
                ),
                Panel(
                    "Liquid against its capacity",
                    "Heat to liquid of each hall with plants of its own for it, and what they can take up.",
                    "timeseries",
                    (_by_medium("liquid"),),
                    12,
                    9,
                ),
                Panel(
                    "Air against its capacity",
                    "Heat to air, losses of the power chain included, and what the plants of air can take up.",
                    "timeseries",
                    (_by_medium("air"),),
                    12,
                    9,
                ),
                Panel(
                    "Cooling power",
                    "What the plants of each hall draw.",
                    "timeseries",
                    (_by_hall(Select("cooling_power_w", "mean", "cooling")),),
                    12,
                    9,
                    stack=("cooling",),
                ),
            ),
        ),
        (
            "Temperatures",
            (
                Panel(
                    "Hottest GPU by hall",
                    "The highest GPU temperature in each hall, amber from 80, red from 87 degC; its racks are on the "
                    "hall's own page.",
                    "heatmap",
                    (_by_hall(Select("temp_max_c", "max", "hottest")),),
                    12,
                    9,
                    steps=TEMPERATURE,
                    scale=HEAT_SCALE,
                ),
                Panel(
                    "Outdoor air",
                    "Wet bulb and dry bulb.",
                    "timeseries",
                    (
                        series(
                            "weather",
                            columns("mean", wet_bulb="wet_bulb_c", dry_bulb="dry_bulb_c"),
                            chosen("site"),
                            every_s=300.0,
                        ),
                    ),
                    12,
                    9,
                ),
            ),
        ),
        (
            "Plant",
            (
                Panel(
                    "Cooling per IT by hall",
                    "Cooling power per IT power of each hall: where cooling works hardest.",
                    "timeseries",
                    (_by_hall(Select("cooling_power_w", "mean", "share", per="it_power_w", scale=100.0)),),
                    12,
                ),
                Panel(
                    "Meters of the building",
                    "The newest reading of every meter, in the unit that its point's name ends in.",
                    "table",
                    (table("facility", {"value": "value", "quality": "quality"}, _HERE, ("hall", "device", "point")),),
                    12,
                    recent_s=900,
                    sort="device",
                    limit=100,
                ),
            ),
        ),
    ),
)
