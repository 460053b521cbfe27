"""A store for each hall: as one store of all points answers, so do they; silent parts; what is kept where."""

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.store import Filter, Query, Select, Store, existing_store, open_store, what_answers
from powerhall.store.hall_stores import KEPT_BY_HALL, HallStores
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import MEASUREMENTS
from powerhall.store.sqlite import SqliteStore

HALLS = ("a", "b")
START_S = 1_700_000_000


def memory() -> Store:
    return SqliteStore(":memory:")


class Silent:
    """A store whose server is gone."""

    def __getattr__(self, name: str) -> object:
        def fail(*_: object) -> None:
            raise Retryable("no connection")

        return fail


def halls_of(site: Store, **halls: Store) -> HallStores:
    return HallStores(site, halls, memory)


def node_line(hall: str, node: str, power_w: float, time_s: int = START_S) -> bytes:
    tags = {"site": "s", "hall": hall, "rack": "r", "node": node}
    return encode(Point("node", tags, {"power_w": power_w, "gpus": 8.0}, time_s * 1000))


points = st.lists(
    st.tuples(
        st.sampled_from((*HALLS, "elsewhere")),
        st.sampled_from(("n1", "n2", "n3")),  # one name in two halls: a node that moved
        st.integers(0, 40),
        st.integers(-999, 999).map(float),
    ),
    max_size=30,
)
aggregates = st.sampled_from(("mean", "min", "max", "sum", "first", "last", "count", "spread"))
tags = st.lists(st.sampled_from(("hall", "node")), unique=True).map(tuple)
wheres = st.sampled_from(({}, {"hall": "a"}, {"hall": ("a", "b")}, {"hall": "elsewhere"}, {"node": "n1"}))


@st.composite
def queries(draw: st.DrawFn) -> Query:
    where, group_by = draw(wheres), draw(tags)
    every_s = draw(st.sampled_from((None, 7.0)))
    filters = draw(st.sampled_from(((), (Filter("power_w", ">=", 0.0),))))
    if not draw(st.booleans()):
        group_by = ("hall", "node")  # stored points of one time are in no order
        limit = draw(st.sampled_from((None, 1, 3)))
        order = draw(st.sampled_from(("asc", "desc")))
        return Query("node", (Select("power_w"),), where, group_by, order=order, limit=limit, filters=filters)
    scale = draw(st.sampled_from((1.0, -2.0, 0.5)))
    select = (Select("power_w", draw(aggregates), "w", draw(st.sampled_from(("", "gpus"))), scale),)
    if draw(st.booleans()):
        inner = Query("node", (Select("power_w", draw(aggregates)),), where, ("node",), every_s, filters=filters)
        return Query("node", (Select("power_w", draw(aggregates), "w"),), every_s=every_s, inner=inner)
    limit = draw(st.sampled_from((None, 1, 2))) if every_s else None
    return Query("node", select, where, group_by, every_s, draw(st.sampled_from(("asc", "desc"))), limit, None, filters)


def found(store: Store, query: Query) -> list[tuple[float, dict[str, str], dict[str, object]]]:
    rows = store.query(query, START_S, START_S + 40)
    rounded = (
        (row.time_s, dict(row.tags), {k: round(v, 6) if isinstance(v, float) else v for k, v in row.values.items()})
        for row in rows
    )
    return list(rounded)


@settings(max_examples=40, deadline=None)
@given(points, queries())
@example(
    [("a", "n1", 1, 0.0), ("b", "n1", 0, 0.0)],  # a node that moved is one of the inner query's groups
    Query("node", (Select("power_w", "count", "w"),), inner=Query("node", (Select("power_w", "mean"),), {}, ("node",))),
)
def test_the_parts_answer_as_one_store_does(drawn, query: Query) -> None:
    last = {(hall, node, at): power_w for hall, node, at, power_w in drawn}
    moments = {}  # first and last of a group are only defined where no two of its points have one time
    for (hall, node, at), power_w in last.items():
        moments.setdefault(at, (hall, node, at, power_w))
    lines = b"".join(node_line(hall, node, power_w, START_S + at) for hall, node, at, power_w in moments.values())
    with closing(memory()) as one, closing(halls_of(memory(), a=memory(), b=memory())) as parts:
        one.write(lines)
        parts.write(lines)
        assert found(parts, query) == found(one, query)


def test_a_node_writes_to_its_halls_store_and_a_rollup_to_the_sites() -> None:
    site, a, b = memory(), memory(), memory()
    stores = halls_of(site, a=a, b=b)
    rollup = encode(Point("hall_10s", {"site": "s", "hall": "a"}, {"it_power_w": 1.0}, START_S * 1000))
    stores.write(node_line("a", "n1", 1.0) + node_line("b", "n2", 2.0) + node_line("c", "n3", 3.0) + rollup)
    query = Query("node", (Select("power_w"),), group_by=("node",))
    held = [[row.tags["node"] for row in store.query(query, START_S, START_S + 1)] for store in (site, a, b)]
    assert held == [["n3"], ["n1"], ["n2"]]
    halls = Query("hall_10s", (Select("it_power_w"),), group_by=("hall",))
    assert [len(store.query(halls, START_S, START_S + 1)) for store in (site, a, b, stores)] == [1, 0, 0, 1]
    stores.put_document("plan", "s", START_S, b"plan")
    assert site.latest_document("plan", "s") == stores.latest_document("plan", "s") == b"plan"
    assert a.latest_document("plan") is None


def test_a_silent_hall_is_an_error_and_costs_a_reader_of_what_answers_itself_alone() -> None:
    stores = halls_of(memory(), a=memory(), b=Silent())
    with pytest.raises(Retryable, match="no connection"):
        stores.write(node_line("b", "n2", 2.0) + node_line("a", "n1", 1.0))
    query = Query("node", (Select("power_w"),), group_by=("node",))
    with pytest.raises(Retryable):
        stores.query(query, START_S, START_S + 1)
    told: list[tuple[str, PowerhallError]] = []
    rows = what_answers(stores, lambda *about: told.append(about))(query, START_S, START_S + 1)
    assert [row.tags["node"] for row in rows] == ["n1"]  # written although the other part of the batch failed
    assert [hall for hall, _ in told] == ["b"]
    assert stores.query(Query("node", query.select, {"hall": "a"}), START_S, START_S + 1)
    silent = halls_of(Silent(), a=Silent())
    with pytest.raises(Retryable):
        what_answers(silent, lambda *_: None)(query, START_S, START_S + 1)


def test_a_reader_of_what_answers_asks_an_ordinary_store_as_ever() -> None:
    with pytest.raises(Retryable):
        what_answers(Silent(), lambda *_: None)(Query("node", (Select("power_w"),)), 0, 1)


def test_measurements_of_a_hall_are_those_that_nodes_write() -> None:
    assert set(MEASUREMENTS) >= KEPT_BY_HALL
    with_node = {name for name, entry in MEASUREMENTS.items() if "node" in entry.tags}
    assert with_node - KEPT_BY_HALL <= {"event", "plan_node", "plan_job"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('site = "sqlite:///x"\n[halls]\n', "halls: must name at least one hall"),
        ('[halls]\na = "sqlite:///x"\n', "site"),
        ('site = "sqlite:///x"\n[halls]\na = 3\n', "halls"),
        ('site = "sqlite:///x"\nhall = "b"\n[halls]\na = "sqlite:///x"\n', "hall"),
        ('site = "sqlite:///x"\n[halls]\na = "halls:///x"\n', "must be one store's URL"),
        ('site = "sqlite:///x"\n[halls]\na = "postgres://x"\n', "must be sqlite:///PATH"),
    ],
)
def test_a_file_that_names_no_stores_is_refused_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "stores.toml").write_text(text.replace("sqlite:///", f"sqlite:///{tmp_path}/"))
    with pytest.raises(Rejected, match=named) as refusal:
        open_store(f"halls:///{tmp_path}/stores.toml")
    assert "\n" not in str(refusal.value)


def test_a_reader_is_told_that_a_halls_file_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "stores.toml").write_text(f'site = "sqlite:///{tmp_path}/s"\n[halls]\na = "sqlite:///{tmp_path}/a"\n')
    with pytest.raises(ConfigError, match="there is no such file; run the agent"):
        existing_store(f"halls:///{tmp_path}/stores.toml", "run the agent first")
    assert not (tmp_path / "s").exists()
    with pytest.raises(Rejected, match=r"stores\.toml"):
        open_store(f"halls:///{tmp_path}/none/stores.toml")
    with pytest.raises(ConfigError, match="names no file"):
        open_store("halls:///")
