"""Bills: who used how much energy, what did it cost, and does it add up to the meter?"""

from powerhall.store import Filter, Query, Select
from powerhall.store.query import TagValue
from powerhall_dashboards.boards.parts import SITE, ZERO_IS_GOOD, chosen, stat, table
from powerhall_dashboards.model import WATT_HOURS, Board, Link, Panel, Step

__all__ = ["BILLS_BOARD"]

_HERE = chosen("site")
_DAY_S = 86_400
_PARTS = ("jobs", "idle", "unallocated", "assumed")
_SOME = (Filter("energy_j", ">", 0.0),)
_TOTALS = (
    Select("gpu_h", "sum", "gpu_h"),
    Select("it_j", "sum", "it", scale=WATT_HOURS),
    Select("energy_j", "sum", "energy", scale=WATT_HOURS),
    Select("energy_j", "sum", "pue", per="it_j"),
    Select("cost", "sum", "cost"),
    Select("co2_kg", "sum", "co2"),
    Select("water_l", "sum", "water"),
    Select("unpriced_j", "sum", "unpriced", scale=WATT_HOURS),
)
_DAILY = {"energy": "energy_j", "gpu_h": "gpu_h", "cost": "cost", "co2": "co2_kg", "unpriced": "unpriced_j"}


def _of_meter(title: str, text: str, select: Select, *, steps: tuple[Step, ...] = ()) -> Panel:
    return stat(title, text, Query("bill_meter", (select,), _HERE), steps=steps, width=4)


def _totals(title: str, text: str, level: str, width: int) -> Panel:
    """Return a table of the sums over the chosen days by name, the dearest in energy first."""
    query = Query("bill_day", _TOTALS, {**_HERE, "level": level}, ("name",), filters=_SOME)
    return Panel(title, text, "table", (query,), width, 8, sort="energy", limit=100, hide=("Time",))


def _by_day(title: str, text: str, column: Select, where: dict[str, TagValue], width: int) -> Panel:
    """Return bars of a day each, stacked by name."""
    query = Query("bill_day", (column,), {**_HERE, **where}, ("name",), filters=_SOME)
    return Panel(title, text, "timeseries", (query,), width, 8, stack=(column.name,), bars_s=_DAY_S)


def _top(title: str, text: str, level: str, names: dict[str, str]) -> Panel:
    query = table("bill_top", names | _DAILY, {**_HERE, "level": level}, ("row",), filters=_SOME, limit=100)
    links = (Link("job", "powerhall-job", ("job",)),) if "job" in names else ()
    return Panel(title, text, "table", (query,), 12, 9, links=links, sort="energy", limit=50, hide=("row",))


_STATS = (
    _of_meter(
        "Energy at the meter",
        "Energy of the site over the chosen days, as the bill has it; nothing is billed in gaps.",
        Select("energy_j", "sum", "energy", scale=WATT_HOURS),
    ),
    _of_meter(
        "Billed to jobs",
        "Share of that energy that jobs are billed for; the rest is idle, unallocated or assumed.",
        Select("billed_j", "sum", "billed", per="energy_j", scale=100.0),
    ),
    _of_meter("PUE", "Energy at the meter per IT energy.", Select("energy_j", "sum", "pue", per="it_j")),
    _of_meter("Cost", "Cost of energy that has a price; demand charges are below.", Select("cost", "sum", "cost")),
    _of_meter("CO2", "CO2 of the energy that has a carbon intensity.", Select("co2_kg", "sum", "co2")),
    _of_meter(
        "Hours without a meter",
        "Hall hours without a roll-up, weather or meter: nothing is billed in them.",
        Select("gap_h", "sum", "gaps"),
        steps=ZERO_IS_GOOD,
    ),
)

BILLS_BOARD = Board(
    "powerhall-bills",
    "Bills",
    "Who used how much energy, what did it cost, and does it add up to the meter?",
    (SITE,),
    (
        ("The chosen days", _STATS),
        (
            "Tenants and projects",
            (
                _totals("Bill by tenant", "Sums of the chosen days; unpriced is energy without a price.", "tenant", 12),
                _by_day(
                    "Energy by tenant and day",
                    "Energy at the meter of each tenant's jobs, a bar a day.",
                    Select("energy_j", "", "energy", scale=WATT_HOURS),
                    {"level": "tenant"},
                    12,
                ),
                _totals("Bill by project", "Sums over the chosen days of each project's jobs.", "project", 12),
                _by_day(
                    "Cost by tenant and day",
                    "Cost of that energy, a bar a day; energy without a price is not in it.",
                    Select("cost", "", "cost"),
                    {"level": "tenant"},
                    12,
                ),
            ),
        ),
        (
            "Does it add up?",
            (
                _by_day(
                    "The meter by what used it",
                    "Jobs, idle GPUs, energy that no job used, and silent nodes at their worst: together the meter.",
                    Select("energy_j", "", "energy", scale=WATT_HOURS),
                    {"level": "part", "name": _PARTS},
                    12,
                ),
                _totals("Parts of the meter", "The same as sums over the chosen days.", "part", 12),
                _totals("Bill by hall", "Jobs in each hall, over the chosen days.", "hall", 12),
                Panel(
                    "Demand charges",
                    "The highest power of the chosen days that counts for each charge, and what that costs.",
                    "table",
                    (
                        Query(
                            "bill_peak",
                            (Select("power_w", "max", "power"), Select("cost", "max", "cost")),
                            _HERE,
                            ("charge",),
                        ),
                    ),
                    12,
                    8,
                    sort="cost",
                    limit=20,
                    hide=("Time",),
                ),
            ),
        ),
        (
            "Who used most in a day",
            (
                _top(
                    "Largest jobs of each day",
                    "The 50 jobs with the most energy of a day; click a job for its page.",
                    "job",
                    {"job": "job", "user": "user_hash", "project": "project", "tenant": "tenant"},
                ),
                _top(
                    "Largest users of each day",
                    "The 50 users with the most energy of a day, by the hash that agents store.",
                    "user",
                    {"user": "user_hash", "project": "project", "tenant": "tenant"},
                ),
            ),
        ),
        (
            "Budgets of tenants",
            (
                Panel(
                    "Budgets of tenants",
                    "What the newest plan counts as used of each budget, as held by jobs beside it, and as left.",
                    "table",
                    (
                        table(
                            "plan_budget",
                            {
                                "tenant": "tenant",
                                "what": "text",
                                "used": "used_percent",
                                "held": "held_percent",
                                "left": "left_percent",
                            },
                            _HERE,
                            ("budget",),
                        ),
                    ),
                    24,
                    7,
                    recent_s=3600,
                    sort="used",
                    limit=100,
                    hide=("budget",),
                ),
            ),
        ),
    ),
    hours=720,
    annotations=False,
)
