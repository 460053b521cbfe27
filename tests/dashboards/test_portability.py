"""Every query that leaves this project keeps to the InfluxQL that InfluxDB 1.6, 2 and 3 answer alike.

docs/guide/store.md lists the shared subset. No board, variable, annotation or alert rule uses anything else, such as
INTO, SLIMIT, Flux or intervals below a second.
"""

import json
import re

import pytest

from powerhall.store.query import AGGREGATES
from powerhall_dashboards.build import built

WORDS = {"SELECT", "FROM", "WHERE", "AND", "OR", "AS", "GROUP", "BY", "ORDER", "DESC", "LIMIT", "fill", "none", "time"}
WORDS |= {"SHOW", "TAG", "VALUES", "WITH", "KEY", "now", "moving_average"}
MACROS = {"$timeFilter", "$__interval"}
QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|/\^\$\w+\$/")


def queries() -> list[str]:
    found = []
    for name, text in built().items():
        if name.endswith(".json"):
            stack = [json.loads(text)]
            while stack:
                part = stack.pop()
                if isinstance(part, dict):
                    found += (
                        [part["query"]] if isinstance(part.get("query"), str) and part["query"] != "influxdb" else []
                    )
                    stack += part.values()
                elif isinstance(part, list):
                    stack += part
    return sorted(set(found))


ALL = queries()


def strangers(query: str) -> set[str]:
    """Return the words, macros and durations of a query that are not of the shared subset."""
    bare = QUOTED.sub(" ", query)
    words = set(re.findall(r"\$?[A-Za-z_]\w*", re.sub(r"\b\d+(?:s|ms|d)\b", " ", bare)))
    return words - WORDS - MACROS - set(AGGREGATES)


def test_there_are_as_many_queries_as_dashboards_need() -> None:
    assert len(ALL) > 100


@pytest.mark.parametrize("query", ALL)
def test_every_query_stays_in_the_subset_of_every_influxdb(query: str) -> None:
    assert strangers(query) == set()
    assert query.startswith(("SELECT ", "SHOW TAG VALUES FROM "))
    assert ";" not in query
    assert "INTO" not in query
    assert query.count("(") == query.count(")")


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ('SELECT mean("a") INTO "b" FROM "c"', "INTO"),
        ('SELECT "a" FROM "c" GROUP BY "t" SLIMIT 5', "SLIMIT"),
        ('SELECT holt_winters(mean("a"), 1, 1) FROM "c"', "holt_winters"),
        ('SELECT "a" FROM "c" WHERE time > now() - interval', "interval"),
        ('from(bucket: "c") |> range(start: -1h)', "bucket"),
    ],
)
def test_a_query_outside_the_shared_subset_is_found(query: str, word: str) -> None:
    assert word in strangers(query)
