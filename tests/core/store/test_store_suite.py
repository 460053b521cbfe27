"""One suite over every store: SQLite and a real InfluxDB keep the interface alike."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from powerhall.runtime.errors import Rejected
from powerhall.store import Filter, Query, Row, Select, Store, Variable, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall.store.open import STORE_KINDS
from powerhall.store.questions import (
    job_energy_j,
    latest,
    latest_per_zone,
    plan_history,
    series_per_zone,
)

START_S = 1_699_999_980
NODES = [("h1", "r1", "n1"), ("h1", "r1", "n2"), ("h1", "r2", "n3"), ("h2", "r3", "n4")]
POWER_W = (Select("power_w", "mean", "power_w"),)


STORES = [
    pytest.param("sqlite", id="sqlite"),
    pytest.param("halls", id="halls"),
    *(
        pytest.param(name, id=name, marks=pytest.mark.rig)
        for name in (
            "influxdb-v2-write",
            "influxdb-v1",
            "influxdb-classes-v2-write",
            "influxdb-classes-v1",
            "influxdb-1.8-classes-v2-write",
        )
    ),
]
"""Each begins with the scheme of its URL."""


def test_every_kind_of_store_is_in_this_suite() -> None:
    assert {str(param.id).partition("-")[0] for param in STORES} == set(STORE_KINDS)


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "halls":
        halls = "".join(f'{hall} = "sqlite:///{tmp_path}/{hall}.db"\n' for hall in ("h1", "h2"))
        (tmp_path / "stores.toml").write_text(f'site = "sqlite:///{tmp_path}/site.db"\n[halls]\n{halls}')
        return f"halls:///{tmp_path}/stores.toml"
    rig = request.getfixturevalue("influx_1_8" if "1.8" in request.param else "influx")
    name = rig.database("suite")
    classes = "&retention=classes" if "classes" in request.param else ""
    for policy in ("recent", "history") if classes else ():
        rig.statement(f'CREATE RETENTION POLICY "{policy}" ON "{name}" DURATION INF REPLICATION 1')
    if request.param.endswith("-v1"):
        return f"influxdb://127.0.0.1:{rig.port}/{name}?version=1{classes}"
    return rig.url(name) + classes


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


def gpu_lines(seconds: int = 60) -> bytes:
    """Two GPUs on each of four nodes, a point each second: power rises by 1 W a second from 100 W x its number."""
    return b"".join(
        encode(
            Point(
                "gpu",
                {"site": "s", "hall": hall, "rack": rack, "node": node, "gpu": str(gpu)},
                {"power_w": 100.0 * (1 + index * 2 + gpu) + second, "temp_c": 40.0 + index},
                (START_S + second) * 1000,
            )
        )
        for second in range(seconds)
        for index, (hall, rack, node) in enumerate(NODES)
        for gpu in (0, 1)
    )


def rounded(row: Row) -> dict[str, object]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.values.items()}


def ask(store: Store, query: Query, end_s: float = START_S + 60) -> list[Row]:
    return store.query(query, START_S, end_s)


def test_bucketed_means_come_per_group_in_order_of_time(store: Store) -> None:
    store.write(gpu_lines())
    rows = ask(store, Query("gpu", POWER_W, group_by=("hall",), every_s=20))
    assert [(row.tags["hall"], row.time_s - START_S) for row in rows] == [
        (hall, at) for hall in ("h1", "h2") for at in (0, 20, 40)
    ]
    assert rows[0].number("power_w") == pytest.approx(350 + 9.5)
    assert rows[5].number("power_w") == pytest.approx(750 + 49.5)


def test_site_power_is_the_sum_of_each_gpus_mean(store: Store) -> None:
    store.write(gpu_lines())
    inner = Query("gpu", POWER_W, group_by=("hall", "node", "gpu"), every_s=30)
    rows = ask(store, Query("gpu", (Select("power_w", "sum"),), group_by=("hall",), every_s=30, inner=inner))
    assert [row.number("power_w") for row in rows] == pytest.approx(
        [2100 + 6 * 14.5, 2100 + 6 * 44.5, 1500 + 2 * 14.5, 1500 + 2 * 44.5]
    )


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("min", 100.0),
        ("max", 159.0),
        ("first", 100.0),
        ("last", 159.0),
        ("sum", 7770.0),
        ("count", 60.0),
        ("spread", 59.0),
        ("mean", 129.5),
    ],
)
def test_aggregates_over_the_whole_range_agree(store: Store, aggregate: str, expected: float) -> None:
    store.write(gpu_lines())
    query = Query("gpu", (Select("power_w", aggregate, "value"),), {"node": "n1", "gpu": "0"})
    (row,) = ask(store, query)
    assert (row.time_s, row.tags, row.number("value")) == (START_S, {}, pytest.approx(expected))


def test_first_and_last_of_one_bucket_follow_time_and_not_the_order_of_arrival(store: Store) -> None:
    lines = gpu_lines().splitlines(keepends=True)
    random.Random(5).shuffle(lines)
    store.write(b"".join(lines))
    query = Query(
        "gpu", (Select("power_w", "first", "a"), Select("power_w", "last", "b")), {"node": "n4", "gpu": "1"}, every_s=30
    )
    assert [(row.values["a"], row.values["b"]) for row in ask(store, query)] == [(800.0, 829.0), (830.0, 859.0)]


def test_a_ratio_and_a_scale_are_computed_by_the_store(store: Store) -> None:
    store.write(b"site_10s,site=s facility_power_w=1300000.0,it_power_w=1000000.0 1699999980000\n")
    query = Query(
        "site_10s",
        (
            Select("facility_power_w", "mean", "pue", per="it_power_w"),
            Select("it_power_w", "mean", "it_mw", scale=1e-6),
        ),
    )
    (row,) = ask(store, query)
    assert row.values == {"pue": pytest.approx(1.3), "it_mw": pytest.approx(1.0)}


def test_a_ratio_by_zero_is_zero(store: Store) -> None:
    store.write(b"site_10s,site=s facility_power_w=5.0,it_power_w=0.0 1699999980000\n")
    (row,) = ask(store, Query("site_10s", (Select("facility_power_w", "mean", "pue", per="it_power_w"),)))
    assert row.values == {"pue": 0.0}


def test_conditions_on_tags_and_fields_select_points(store: Store) -> None:
    store.write(gpu_lines())
    query = Query(
        "gpu",
        (Select("power_w", "count", "n"),),
        {"node": ("n1", "n2"), "gpu": "1"},
        filters=(Filter("power_w", ">=", 430.0),),
    )
    (row,) = ask(store, query)
    assert row.values == {"n": 30.0}


def test_conditions_of_an_outer_query_apply_to_the_inner_rows(store: Store) -> None:
    store.write(gpu_lines())
    inner = Query("gpu", POWER_W, group_by=("hall", "node"))
    query = Query(
        "gpu", (Select("power_w", "max"),), {"hall": "h1"}, inner=inner, filters=(Filter("power_w", "<", 400.0),)
    )
    (row,) = ask(store, query)
    assert row.number("power_w") == pytest.approx(350 + 29.5)


def test_the_newest_points_are_limited_per_group(store: Store) -> None:
    store.write(gpu_lines())
    rows = ask(store, Query("gpu", (Select("power_w"),), group_by=("node", "gpu"), order="desc", limit=2))
    assert len(rows) == 16
    assert [(row.tags, row.time_s - START_S, row.values) for row in rows[:2]] == [
        ({"node": "n1", "gpu": "0"}, 59, {"power_w": 159.0}),
        ({"node": "n1", "gpu": "0"}, 58, {"power_w": 158.0}),
    ]


def test_a_limit_counts_only_points_that_have_the_field(store: Store) -> None:
    store.write(
        b"gpu,site=s,node=n,gpu=0 power_w=1.0 1699999980000\ngpu,site=s,node=n,gpu=0 temp_c=2.0 1699999981000\n"
    )
    (row,) = ask(store, Query("gpu", (Select("power_w"),), group_by=("node",), order="desc", limit=1))
    assert (row.time_s, row.values) == (START_S, {"power_w": 1.0})


def test_the_end_of_the_range_is_outside(store: Store) -> None:
    store.write(gpu_lines())
    (row,) = store.query(
        Query("gpu", (Select("power_w", "count", "n"),), {"node": "n1", "gpu": "0"}), START_S + 10, START_S + 20
    )
    assert row.values == {"n": 10.0}


def test_an_empty_range_gives_no_rows(store: Store) -> None:
    store.write(gpu_lines())
    for select in (Select("power_w"), Select("power_w", "mean"), Select("power_w", "count")):
        assert store.query(Query("gpu", (select,)), START_S + 1000, START_S + 2000) == []


def test_a_resend_is_the_same_point(store: Store) -> None:
    for _ in range(3):
        store.write(gpu_lines(5))
    (row,) = ask(store, Query("gpu", (Select("power_w", "count", "n"),)))
    assert row.values == {"n": 40.0}


def test_fields_of_two_writes_of_one_point_are_joined_and_the_later_value_stands(store: Store) -> None:
    store.write(b"node,site=s,hall=h,rack=r,node=n power_w=1.0,gpus=8.0 1699999980000\n")
    store.write(b"node,site=s,hall=h,rack=r,node=n power_w=2.0,cpu_power_w=3.0 1699999980000\n")
    (row,) = ask(store, Query("node", (Select("power_w"), Select("gpus"), Select("cpu_power_w"))))
    assert row.values == {"power_w": 2.0, "gpus": 8.0, "cpu_power_w": 3.0}


def test_text_survives_with_every_awkward_character(store: Store) -> None:
    reason = 'waits: "hall 3" is full, a=b, c:\\d \\"e\\" – ü ✓ '
    tags = {"site": "my site, a=b", "row": "1"}
    store.write(encode(Point("plan_job", tags, {"job": "j 1", "state": "waiting", "reason": reason}, START_S * 1000)))
    query = Query(
        "plan_job",
        (Select("job"), Select("reason")),
        {"site": "my site, a=b"},
        ("site",),
        filters=(Filter("state", "=", "waiting"),),
    )
    (row,) = ask(store, query)
    assert (row.tags, row.values) == ({"site": "my site, a=b"}, {"job": "j 1", "reason": reason})


def test_quotes_in_conditions_are_values_and_never_syntax(store: Store) -> None:
    store.write(gpu_lines(2))
    for text in ("n1' OR 'a'='a", "n1\\' OR 1=1 --", 'n1" OR "a"="a'):
        assert ask(store, Query("gpu", POWER_W, {"node": text})) == []


def test_a_tag_that_a_point_lacks_is_the_empty_text(store: Store) -> None:
    store.write(b'event,site=s,kind=curtailment detail="grid",severity=1.0 1699999980000\n')
    (row,) = ask(store, Query("event", (Select("detail"),), {"gpu": ""}, ("kind", "gpu")))
    assert (row.tags, row.values) == ({"kind": "curtailment", "gpu": ""}, {"detail": "grid"})


@pytest.mark.parametrize(
    "line",
    [
        b"gpu,site=s power_w= 1699999980000",
        b"gpu,site=s 1699999980000",
        b"gpu,site=s power_w=1.0,temp_c 1699999980000",
        b'gpu,site=s power_w="high" 1699999980000',
    ],
)
def test_a_line_that_does_not_fit_is_rejected_and_named(store: Store, line: bytes) -> None:
    store.write(b"gpu,site=s power_w=1.0 1699999979000\n")
    with pytest.raises(Rejected) as refusal:
        store.write(line + b"\n")
    assert type(refusal.value) is Rejected
    assert "\n" not in str(refusal.value)


def test_documents_come_back_whole_and_newest_first(store: Store) -> None:
    large = random.Random(3).randbytes(300_000)
    store.put_document("plan", "s", START_S, b"older")
    store.put_document("plan", "s", START_S + 300, large)
    store.put_document("lease", "s", START_S + 600, b"lease")
    assert store.latest_document("plan", "s") == large
    assert store.latest_document("plan") == large
    assert store.latest_document("lease") == b"lease"
    assert store.latest_document("plan", "other") is None
    assert store.latest_document("queue") is None


def test_a_document_written_again_at_the_same_time_replaces_the_first(store: Store) -> None:
    store.put_document("plan", "s", START_S, random.Random(1).randbytes(200_000))
    store.put_document("plan", "s", START_S, b"short")
    assert store.latest_document("plan", "s") == b"short"


def test_an_empty_document_and_an_empty_key_are_kept(store: Store) -> None:
    store.put_document("queue", "", START_S, b"")
    assert store.latest_document("queue") == b""
    assert store.latest_document("queue", "") == b""


def test_questions_of_optimizer_and_dashboards_are_answered(store: Store) -> None:
    store.write(
        b"".join(
            b"hall_10s,site=s,hall=%s it_power_w=%d.0,budget_w=500.0 %d\n" % (hall, power, (START_S + at) * 1000)
            for hall, base in ((b"h1", 100), (b"h2", 200))
            for at, power in ((0, base), (10, base + 20))
        )
        + b'job_interval,site=s,hall=h1,rack=r1,node=n1,gpu=0 job="7",energy_j=50.0 %d\n' % (START_S * 1000)
        + b'job_interval,site=s,hall=h1,rack=r1,node=n1,gpu=1 job="7",energy_j=25.0 %d\n' % (START_S * 1000)
        + b'job_interval,site=s,hall=h1,rack=r1,node=n2,gpu=1 job="8",energy_j=11.0 %d\n' % (START_S * 1000)
        + b'plan,site=s plan_id="a",gap=0.1 %d\nplan,site=s plan_id="b",gap=0.2 %d\n'
        % (START_S * 1000, (START_S + 1) * 1000)
    )
    now_s = START_S + 15
    newest = latest_per_zone(store, "hall", ("it_power_w", "budget_w"), now_s, max_age_s=60)
    assert [(row.tags["hall"], row.time_s, row.number("it_power_w")) for row in newest] == [
        ("h1", START_S + 10, 120.0),
        ("h2", START_S + 10, 220.0),
    ]
    assert latest_per_zone(store, "hall", ("it_power_w",), now_s + 100, max_age_s=60) == []
    assert [
        row.number("it_power_w") for row in series_per_zone(store, "hall", "it_power_w", START_S, now_s, every_s=20)
    ] == [110.0, 210.0]
    assert job_energy_j(store, "7", START_S, now_s) == 75.0
    assert job_energy_j(store, "none", START_S, now_s) == 0.0
    assert [row.values["plan_id"] for row in plan_history(store, "s", START_S, now_s)] == ["a", "b"]
    (row,) = latest(store, "plan", ("gap",), now_s, max_age_s=60)
    assert row.number("gap") == 0.2


def test_an_unbound_variable_is_refused_before_anything_is_sent(store: Store) -> None:
    query = Query("gpu", POWER_W, {"hall": Variable("hall")})
    with pytest.raises(Rejected, match="must be bound"):
        ask(store, query)
    store.write(gpu_lines(1))
    assert ask(store, query.bind({"hall": ("h2",)}))[0].number("power_w") == 750.0
    assert ask(store, query.bind({}))[0].number("power_w") == 450.0


def test_a_closed_store_can_be_opened_again_with_all_its_data(url: str) -> None:
    first = open_store(url)
    first.write(gpu_lines(3))
    first.put_document("plan", "s", START_S, b"{}")
    first.close()
    again = open_store(url)
    (row,) = ask(again, Query("gpu", (Select("power_w", "count", "n"),)))
    assert row.values == {"n": 24.0}
    assert again.latest_document("plan") == b"{}"
    again.close()


def test_random_data_gives_equal_answers_from_both_stores(influx: object, tmp_path: Path) -> None:
    sqlite_store = open_store(f"sqlite:///{tmp_path / 'twin.db'}")
    influx_store = open_store(influx.url(influx.database("random")))
    chance = random.Random(11)
    points = [
        Point(
            "gpu",
            {
                "site": "s",
                "hall": chance.choice("ab"),
                "rack": "r",
                "node": chance.choice("xyz"),
                "gpu": chance.choice("01"),
            },
            {
                name: round(chance.uniform(-5, 900), 2)
                for name in chance.sample(["power_w", "temp_c", "util_percent"], 2)
            },
            (START_S + chance.randrange(600)) * 1000 + chance.randrange(1000),
        )
        for _ in range(1500)
    ]
    lines = b"".join(map(encode, points))
    for one in (sqlite_store, influx_store):
        one.write(lines)
    groups: list[tuple[str, ...]] = [(), ("hall",), ("hall", "node"), ("site", "hall", "rack", "node", "gpu")]
    makers: list[Callable[[tuple[str, ...]], Query]] = [
        *(lambda g, a=a, e=e: Query("gpu", (Select("power_w", a), Select("temp_c", a)), group_by=g, every_s=e)
          for a in ("mean", "min", "max", "sum", "count", "spread", "first", "last") for e in (None, 7.0, 60.0)),
        lambda g: Query("gpu", (Select("power_w", "mean", "x", per="util_percent", scale=2.0),),
                        group_by=g, every_s=30.0),
        lambda g: Query("gpu", (Select("power_w", "mean"),), group_by=g, every_s=60.0, order="desc", limit=3),
        lambda g: Query("gpu", (Select("power_w", "count"),), {"node": ("x", "z")}, g,
                        filters=(Filter("power_w", "<=", 450.0),)),
    ]  # fmt: skip
    for group in groups:
        for make in makers:
            query = make(group)
            mine, theirs = (one.query(query, START_S + 5.5, START_S + 500) for one in (sqlite_store, influx_store))
            assert [(row.time_s, row.tags) for row in mine] == [(row.time_s, row.tags) for row in theirs], query
            for left, right in zip(mine, theirs, strict=True):
                assert rounded(left) == rounded(right), query
    sqlite_store.close()
    influx_store.close()
