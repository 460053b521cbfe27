"""The first five seconds: is the site safe now, what comes in the next two hours, and what is there to do?"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from itertools import pairwise
from statistics import fmean

from powerhall.forecasts.page_times import local_words, near
from powerhall.store import Filter, Query, Row, Select, Store
from powerhall.store.query import TagValue
from powerhall_dashboards.alerts import RULES, Rule
from powerhall_dashboards.boards.parts import table
from powerhall_dashboards.preview import text
from powerhall_dashboards.preview.ahead_chart import AheadChart, ahead_chart
from powerhall_dashboards.preview.first_action import LimitLine, ToDo, first_action
from powerhall_dashboards.preview.missing_limits import missing_limits

__all__ = ["AheadLine", "LimitLine", "Overview", "ToDo", "overview"]

AHEAD_S = 7200.0
_NOW_S = 120.0
_SHOWN = 8
_NEAR, _AT = 95.0, 100.0
"""Percent of a limit from which it is near, as the alerts see it, and reached."""
_NO_LIMIT = 999.0
"""Percent of a limit of 0 W that anything uses, as the roll-up writes it."""
_WORST = {"critical": 0, "warning": 1, "good": 2}
Site = dict[str, TagValue]


@dataclass(frozen=True, slots=True)
class AheadLine:
    """Something that comes: when, what, and its role."""

    when: str
    what: str
    role: str = "neutral"


@dataclass(frozen=True, slots=True)
class Overview:
    """The answers of the page's first screen."""

    verdict: str
    role: str
    limits: list[LimitLine]
    more_limits: int
    ahead: list[AheadLine]
    chart: AheadChart | None
    alarms: list[ToDo]
    waiting: list[ToDo]


def overview(store: Store, site: tuple[str, ...], end_s: float, zone: tzinfo = UTC) -> Overview:
    """Return the overview of a site at `end_s`, with times of the day in a time zone."""
    name = site[0] if site else ""
    coming = _coming(store, name, end_s)
    limits = sorted(_limits(store, {"site": site}, end_s), key=lambda line: (_WORST[line.role], -line.used_percent))
    alarms = list(_alarms(store, site, end_s))
    silent = missing_limits(store, name, end_s, coming, {line.name for line in limits})
    is_fresh = bool(limits) or bool(_newest(store, table("site_10s", {"it": "it_power_w"}, {"site": site}, ()), end_s))
    verdict, role = _verdict(limits, alarms, silent, is_fresh=is_fresh)
    if role == "critical":
        alarms = [*first_action(limits, silent, is_fresh=is_fresh, is_alarmed=bool(alarms)), *alarms]
    ahead = [line for _, line in sorted(_ahead(coming, name, end_s, zone), key=lambda entry: entry[0])]
    own = [row for row in coming if row.tags["zone"] == name]
    chart = ahead_chart(own, end_s, end_s + AHEAD_S, zone)
    waiting = list(_waiting(store, {"site": site}, end_s, zone))
    return Overview(verdict, role, limits[:_SHOWN], max(0, len(limits) - _SHOWN), ahead, chart, alarms, waiting)


def _verdict(
    limits: Sequence[LimitLine], alarms: Sequence[ToDo], silent: Sequence[str], *, is_fresh: bool
) -> tuple[str, str]:
    over = [line.name for line in limits if line.role == "critical"]
    near = [line.name for line in limits if line.role == "warning"]
    if over:
        return f"NOT SAFE: over the limit: {', '.join(over[:4])}", "critical"
    if not limits and not (is_fresh and silent):
        why = "no limit is known of site or halls" if is_fresh else "no roll-up of the last two minutes"
        return f"UNKNOWN: {why}", "critical"
    if silent:
        more = f" and {len(silent) - 4} more" if len(silent) > 4 else ""
        return f"UNKNOWN: nothing of the last two minutes says {', '.join(silent[:4])}{more}", "critical"
    grave = sum(alarm.role == "critical" for alarm in alarms)
    tightest = f"tightest is {limits[0].name} at {limits[0].used_percent:.0f} %"
    if grave:
        return f"Within every limit, {grave} critical alarm{'s' if grave > 1 else ''}; {tightest}", "warning"
    if near:
        return f"Within every limit, but close: {', '.join(near[:4])}", "warning"
    return f"SAFE: within every limit; {tightest}", "good"


def _limits(store: Store, site: Site, end_s: float) -> Iterator[LimitLine]:
    """Yield every power limit of site and halls, and the cooling of each hall by medium."""
    power = {"load": "facility_power_w", "limit": "budget_w"}
    for row in _newest(store, table("site_10s", power, site, ("site",)), end_s):
        yield from _limit(f"{row.tags['site']} at the meter", row.number("load"), row.number("limit"))
    fields = {"load": "it_power_w", "limit": "budget_w", "heat": "heat_w", "capacity": "cooling_capacity_w"}
    for medium in ("liquid", "air"):
        fields |= {f"heat_{medium}": f"heat_{medium}_w", f"capacity_{medium}": f"cooling_capacity_{medium}_w"}
    for row in _newest(store, table("hall_10s", fields, site, ("hall",)), end_s):
        hall = row.tags["hall"]
        yield from _limit(f"{hall} power", row.number("load"), row.number("limit"))
        media = [m for m in ("liquid", "air") if row.number(f"capacity_{m}") is not None]
        for medium in media:
            name = f"{hall} cooling ({medium})"
            yield from _limit(name, row.number(f"heat_{medium}"), row.number(f"capacity_{medium}"))
        if not media:
            yield from _limit(f"{hall} cooling", row.number("heat"), row.number("capacity"))
    over = table("rack_10s", power | {"load": "it_power_w"}, site, ("rack",), filters=(Filter("headroom_w", "<", 0.0),))
    for row in store.query(over, end_s - _NOW_S / 2, end_s + 1):
        yield from _limit(f"rack {row.tags['rack']}", row.number("load"), row.number("limit"))


def _limit(name: str, load_w: float | None, limit_w: float | None) -> Iterator[LimitLine]:
    if load_w is None or limit_w is None:
        return
    used = 100.0 * load_w / limit_w if limit_w > 0 else _NO_LIMIT if load_w > 0 else _AT
    left = f"{text.value(limit_w - load_w, 'W')} left" if used <= _AT else f"{text.value(load_w - limit_w, 'W')} OVER"
    yield LimitLine(name, used, left, _role_of(used))


def _role_of(used_percent: float) -> str:
    return "critical" if used_percent > _AT else "warning" if used_percent >= _NEAR else "good"


def _newest(store: Store, query: Query, end_s: float) -> list[Row]:
    return store.query(query, end_s - _NOW_S, end_s + 1)


def _coming(store: Store, site: str, end_s: float) -> list[Row]:
    """Return what is planned for each zone of a site from now on."""
    columns = ("planned_w", "budget_w", "heat_w", "cooling_capacity_w")
    query = Query("plan_zone", tuple(Select(c) for c in columns), {"site": (site,)}, ("zone",))
    return store.query(query, end_s - 300, end_s + AHEAD_S)


def _ahead(rows: Sequence[Row], site: str, end_s: float, zone: tzinfo) -> Iterator[tuple[float, AheadLine]]:
    """Yield the steps of the site's budget and the tightest moment of power and of cooling, each with its moment."""
    if not rows:
        yield end_s, AheadLine("", "no plan covers the next two hours", "critical")
        return
    own = [row for row in rows if row.tags["zone"] == site and row.number("budget_w") is not None]
    for before, after in pairwise(own):
        old_w, new_w = before.number("budget_w") or 0.0, after.number("budget_w") or 0.0
        if abs(new_w - old_w) > 0.005 * max(old_w, 1.0):
            falls = new_w < old_w
            what = f"budget {'falls' if falls else 'rises'} from {text.value(old_w, 'W')} to {text.value(new_w, 'W')}"
            when = near(after.time_s, end_s, zone)[:5]
            yield after.time_s, AheadLine(when, what, "warning" if falls else "neutral")
    for what, load, limit in (("power", "planned_w", "budget_w"), ("cooling", "heat_w", "cooling_capacity_w")):
        shares = [
            (100.0 * (row.number(load) or 0.0) / most, row) for row in rows if (most := row.number(limit) or 0.0) > 0
        ]
        if shares:
            used, row = max(shares, key=lambda entry: entry[0])
            line = f"tightest {what}: {row.tags['zone']} planned at {used:.0f} % of its limit"
            when = "now" if row.time_s <= end_s else near(row.time_s, end_s, zone)[:5]
            yield max(row.time_s, end_s), AheadLine(when, line, _role_of(used))


def _alarms(store: Store, site: tuple[str, ...], end_s: float) -> Iterator[ToDo]:
    """Yield the alert rules that are raised now, the critical ones first, each with its first action."""
    for rule in sorted(RULES, key=lambda rule: _WORST[rule.severity]):
        places = _raised(store, rule, site, end_s)
        if places is not None:
            shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
            yield ToDo(rule.title, shown, rule.do.split(". ")[0].rstrip(".") + ".", rule.severity, rule.board)


def _raised(store: Store, rule: Rule, site: tuple[str, ...], end_s: float) -> list[str] | None:
    """Return where a rule is raised; None where it is not. Names of zones and nodes, "" for the site."""
    if rule.quiet_buckets:
        rounds_s = rule.quiet_buckets * (rule.queries[0].every_s or 0.0)
        newest = store.query(
            table("plan", {"value": "value"}, {"site": site}, ("site",)), end_s - rule.look_back_s, end_s + 1
        )
        return None if newest and max(row.time_s for row in newest) > end_s - rounds_s else [""]
    reduced = [_reduced(store, rule, query, site, end_s) for query in rule.queries]
    numbers = reduced[0]
    if len(reduced) == 2:
        numbers = {key: reduced[1][key] - value for key, value in reduced[0].items() if key in reduced[1]}
    places = [key for key, number in numbers.items() if _compared(rule, number)]
    return sorted({" ".join(part for part in place if part not in site) for place in places}) or None


def _reduced(
    store: Store, rule: Rule, query: Query, site: tuple[str, ...], end_s: float
) -> dict[tuple[str, ...], float]:
    """Return one number per series, as the rule reduces it."""
    if "site" in query.tags:
        query = Query(
            query.measurement, query.select, {**query.where, "site": site}, query.group_by,
            every_s=query.every_s, filters=query.filters,
        )  # fmt: skip
    (entry,) = query.select
    found: dict[tuple[str, ...], list[float]] = {}
    for row in store.query(query, end_s - rule.look_back_s, end_s + 1):
        if (number := row.number(entry.name)) is not None:
            found.setdefault(tuple(row.tags.get(tag, "") for tag in query.group_by), []).append(number)
    return {key: _REDUCERS[rule.reduce](numbers) for key, numbers in found.items()}


def _newest_of(numbers: list[float]) -> float:
    return numbers[-1]


_REDUCERS: dict[str, Callable[[list[float]], float]] = {"last": _newest_of, "max": max, "sum": sum, "mean": fmean}


def _compared(rule: Rule, number: float) -> bool:
    match rule.compare:
        case "gt":
            return number > rule.limits[0]
        case "lt":
            return number < rule.limits[0]
        case "outside_range":
            return not rule.limits[0] <= number <= rule.limits[1]


def _waiting(store: Store, site: Site, end_s: float, zone: tzinfo) -> Iterator[ToDo]:
    """Yield the reasons for which jobs of the newest plan wait, the one with the most GPUs first."""
    plans = store.query(table("plan", {"plan": "plan_id"}, site, ()), end_s - 3600, end_s + 1)
    if not plans:
        return
    columns = {"job": "job", "gpus": "gpus", "reason": "reason", "what_if": "what_if"}
    of_plan = (Filter("state", "=", "waiting"), Filter("plan_id", "=", str(plans[0].values["plan"])))
    rows = store.query(table("plan_job", columns, site, ("row",), filters=of_plan), end_s - 3600, end_s + 1)
    by_reason: dict[str, list[Row]] = {}
    for row in rows:
        by_reason.setdefault(re.sub(r"\d[\d.,:]*", "..", str(row.values["reason"] or "")), []).append(row)
    for found in sorted(by_reason.values(), key=lambda rows: -sum(row.number("gpus") or 0.0 for row in rows))[:4]:
        gpus = sum(row.number("gpus") or 0.0 for row in found)
        helps = next((str(row.values["what_if"]) for row in found if row.values["what_if"]), "nothing that was tried")
        count = f"{len(found)} job{'s' if len(found) > 1 else ''}, {gpus:.0f} GPUs"
        reason, would = (local_words(words, end_s, zone) for words in (str(found[0].values["reason"]), helps))
        yield ToDo(reason, count, f"Would start: {would}", "neutral", "powerhall-optimizer")
