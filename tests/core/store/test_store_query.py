"""Queries: refusals when they are built, and their InfluxQL."""

import pytest

from powerhall.runtime.errors import Rejected
from powerhall.store import Filter, Query, Select, Variable
from powerhall.store.influxdb.influxql import render_grafana, render_influxql
from powerhall.store.sql import render_sql

MEAN = (Select("power_w", "mean"),)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"measurement": "gpus", "select": MEAN}, "'gpus': must be one of gpu,"),
        ({"measurement": "gpu", "select": ()}, "at least one column"),
        ({"measurement": "gpu", "select": (Select("power", "mean"),)}, "'power': must be one of power_w,"),
        ({"measurement": "gpu", "select": (Select("power_w", "median"),)}, "'median': must be one of mean,"),
        ({"measurement": "gpu", "select": (Select("power_w", "mean", 'a"b'),)}, "letters, digits and underscores"),
        ({"measurement": "gpu", "select": (Select("power_w", "mean", per="cores"),)}, "'cores'"),
        ({"measurement": "gpu", "select": (*MEAN, Select("temp_c"))}, "must not be mixed"),
        ({"measurement": "gpu", "select": MEAN, "where": {"job": "7"}}, "tag: 'job': must be one of site,"),
        ({"measurement": "gpu", "select": MEAN, "group_by": ("zone",)}, "tag: 'zone'"),
        ({"measurement": "gpu", "select": MEAN, "every_s": 0.0}, "every_s: 0.0"),
        ({"measurement": "gpu", "select": (Select("power_w"),), "every_s": 10.0}, "with aggregates only"),
        ({"measurement": "gpu", "select": MEAN, "limit": 5}, "limit: 5"),
        ({"measurement": "gpu", "select": (Select("power_w"),), "limit": 0}, "limit: 0"),
        ({"measurement": "gpu", "select": MEAN, "order": "random"}, "'random': must be one of asc, desc"),
        ({"measurement": "gpu", "select": MEAN, "filters": (Filter("power_w", "~", 1.0),)}, "operator: '~'"),
        ({"measurement": "gpu", "select": MEAN, "inner": Query("node", MEAN)}, "same measurement"),
        ({"measurement": "gpu", "select": MEAN, "inner": Query("gpu", MEAN), "where": {"hall": "a"}}, "one of none"),
    ],
)
def test_a_query_that_the_schema_cannot_answer_is_refused_when_built(arguments: dict, named: str) -> None:
    with pytest.raises(Rejected) as refusal:
        Query(**arguments)
    assert named in str(refusal.value)


def test_a_panel_query_carries_grafanas_range_interval_and_variables() -> None:
    query = Query(
        "hall_10s",
        (Select("it_power_w", "mean", "it", scale=1e-6),),
        {"site": Variable("site"), "hall": ("a", "b")},
        ("hall",),
        every_s=10.0,
    )
    assert render_grafana(query) == (
        'SELECT mean("it_power_w") * 0.000001 AS "it" FROM "hall_10s" WHERE $timeFilter AND "site" =~ /^$site$/ '
        'AND ("hall" = \'a\' OR "hall" = \'b\') GROUP BY time($__interval), "hall" fill(none)'
    )


def test_a_nested_query_repeats_the_time_range_inside() -> None:
    inner = Query("gpu", MEAN, {"hall": "a"}, ("node", "gpu"), every_s=0.5)
    query = Query("gpu", (Select("power_w", "sum", "w"),), every_s=0.5, inner=inner)
    assert render_influxql(query, 5, 9) == (
        'SELECT sum("power_w") AS "w" FROM (SELECT mean("power_w") AS "power_w" FROM "gpu" WHERE time >= 5ms AND '
        'time < 9ms AND "hall" = \'a\' GROUP BY time(500ms), "node", "gpu" fill(none)) '
        "WHERE time >= 5ms AND time < 9ms GROUP BY time(500ms) fill(none)"
    )


def test_values_are_quoted_in_influxql_and_bound_in_sql() -> None:
    query = Query("plan_job", (Select("job"),), {"site": "a'b\\"}, filters=(Filter("state", "!=", "o'k"),))
    assert "\"site\" = 'a\\'b%5C' AND \"state\" <> 'o\\'k'" in render_influxql(query, 0, 1)
    statement = render_sql(query, 0, 1)
    assert "a'b" not in statement.text
    assert statement.parameters == [0, 1, "a'b\\", "o'k"]


def test_a_field_variable_is_one_value_and_a_tag_variable_may_be_several() -> None:
    query = Query(
        "job_interval",
        (Select("energy_j", "sum"),),
        {"node": Variable("node")},
        filters=(Filter("job", "=", Variable("job")),),
    )
    assert query.variables() == {"node", "job"}
    assert '"node" =~ /^$node$/ AND "job" = \'${job}\'' in render_grafana(query)
    bound = query.bind({"node": ("a", "b"), "job": "7"})
    assert bound.where == {"node": ("a", "b")}
    assert bound.filters == (Filter("job", "=", "7"),)
    assert query.bind({}).variables() == frozenset()


def test_buckets_are_widened_and_never_narrowed() -> None:
    inner = Query("gpu", MEAN, group_by=("node",), every_s=10.0)
    query = Query("gpu", (Select("power_w", "sum"),), every_s=60.0, inner=inner).bucketed(30.0)
    assert (query.every_s, query.inner.every_s) == (60.0, 30.0)
    assert Query("gpu", MEAN).bucketed(30.0).every_s is None


@pytest.mark.parametrize("render", [render_influxql, render_sql])
def test_no_values_to_choose_from_is_refused(render: object) -> None:
    with pytest.raises(Rejected, match="at least one value"):
        render(Query("gpu", MEAN, {"hall": ()}), 0, 1)
