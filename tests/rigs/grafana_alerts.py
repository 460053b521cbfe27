"""Evaluates a provisioned Grafana alert rule over a store, as Grafana's expression engine would: for tests of rules.

Knows what our rules use: InfluxQL queries, reduce (last, max, sum, mean; non-numbers dropped), subtraction of two
reduced queries joined by equal labels, and thresholds. The `for` duration is not waited for.
"""

import statistics
from collections.abc import Callable

from powerhall.store.influxdb.store import InfluxStore

Labels = tuple[tuple[str, str], ...]
_REDUCERS: dict[str, Callable[[list[float]], float]] = {
    "last": lambda numbers: numbers[-1],
    "max": max,
    "sum": sum,
    "mean": statistics.fmean,
}


def evaluate(rule: dict, store: InfluxStore, now_s: float) -> tuple[str, list[dict[str, str]]]:
    """Return `Alerting`, `Normal` or the rule's state for no data, and the labels of the series that raise it."""
    results: dict[str, dict[Labels, list[float] | float]] = {}
    for part in rule["data"]:
        model = part["model"]
        if part["datasourceUid"] != "__expr__":
            start_s = now_s - part["relativeTimeRange"]["from"]
            results[part["refId"]] = _query(model["query"], store, start_s, now_s)
        elif model["type"] == "reduce":
            reduce = _REDUCERS[model["reducer"]]
            assert model["settings"] == {"mode": "dropNN"}
            series = results[model["expression"]]
            results[part["refId"]] = {labels: reduce(numbers) for labels, numbers in series.items() if numbers}
        elif model["type"] == "math":
            left, _, right = model["expression"].partition(" - ")
            first, second = results[left.removeprefix("$")], results[right.removeprefix("$")]
            results[part["refId"]] = {labels: first[labels] - second[labels] for labels in first if labels in second}
        else:
            raised = {labels: _compare(model, number) for labels, number in results[model["expression"]].items()}
            results[part["refId"]] = raised
    outcome = results[rule["condition"]]
    if not outcome:
        return rule["noDataState"], []
    active = [dict(labels) for labels, raised in outcome.items() if raised]
    return ("Alerting" if active else "Normal"), active


def _query(text: str, store: InfluxStore, start_s: float, end_s: float) -> dict[Labels, list[float]]:
    text = text.replace("$timeFilter", f"time >= {round(start_s * 1000)}ms AND time <= {round(end_s * 1000)}ms")
    assert "$" not in text, text
    return {
        tuple(sorted(series.tags.items())): [float(line[1]) for line in series.values if line[1] is not None]
        for series in store._select(text)
    }


def _compare(model: dict, number: float) -> bool:
    evaluator = model["conditions"][0]["evaluator"]
    limits = evaluator["params"]
    match evaluator["type"]:
        case "gt":
            return number > limits[0]
        case "lt":
            return number < limits[0]
        case "outside_range":
            return not limits[0] <= number <= limits[1]
    raise AssertionError(evaluator["type"])
