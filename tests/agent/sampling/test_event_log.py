"""Events of one tick stay apart in every store, in the order in which they came."""

from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store import Query, Select, open_store
from powerhall.store.line_protocol import parse_lines
from powerhall.timeseries import Series
from powerhall_agent.base.encoder import encode_all
from powerhall_agent.sampling.event_log import EventLog
from powerhall_agent.sampling.record_queue import RecordQueue
from powerhall_optimizer.rollup.events import curtailments

TAGS = {"site": "s", "hall": "", "rack": "", "node": "gn01"}
BURST = [(1, 48), (1, 63), (1, 94), (1, 45), (0, 79), (0, 45), (None, 1)]


def lines_of(events):
    queue = RecordQueue()
    log = EventLog(TAGS, queue)
    for time_ms, gpu, kind, code in events:
        log.put(kind, code, f"XID error {code}", 2, time_ms, gpu)
    assert queue.urgent
    return encode_all(queue.take())


def by_series(lines):
    """Keep points as InfluxDB does: the last of one measurement, tag set and time."""
    kept = {}
    for point in parse_lines(lines):
        kept[(point.measurement, tuple(sorted(point.tags.items())), point.time_ms)] = point
    return sorted(kept.values(), key=lambda point: point.time_ms)


def test_a_burst_of_one_tick_is_kept_whole_and_in_order(tmp_path):
    lines = lines_of((1_700_000_000_000, gpu, "xid", code) for gpu, code in BURST)
    assert [point.fields["code"] for point in by_series(lines)] == [code for _, code in BURST]
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    store.write(lines)
    rows = store.query(Query("event", (Select("code"),)), 1_699_999_000.0, 1_700_001_000.0)
    store.close()
    assert sorted(row.values["code"] for row in rows) == sorted(float(code) for _, code in BURST)
    assert [row.values["code"] for row in sorted(rows, key=lambda row: row.time_s)] == [code for _, code in BURST]


def test_an_event_found_later_keeps_its_own_time():
    found = by_series(lines_of([(5000, 0, "xid", 79), (4300, 0, "power_step", 1), (4300, 0, "power_step", 2)]))
    assert [(point.time_ms, point.fields["code"]) for point in found] == [(4300, 1.0), (4301, 2.0), (5000, 79.0)]


@given(
    st.lists(
        st.tuples(
            st.integers(1000, 1100), st.sampled_from([None, 0, 1]), st.sampled_from(["xid", "poison"]), st.integers(1)
        ),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=100, deadline=None)
def test_no_event_ever_takes_the_place_of_another(events):
    found = by_series(lines_of(events))
    assert len(found) == len(events)
    present = sorted(events, key=lambda event: event[0])
    burst = by_series(lines_of(present))
    assert [point.fields["code"] for point in burst] == [float(code) for *_, code in present], "the order of arrival"


def test_budgets_of_two_feeds_that_fall_at_once_are_two_events():
    falling = Series((0.0, 100.0), (6000.0, 5000.0))
    site = Site("s", (), {}, power_limit_w=20_000.0, budgets={"feed a": falling, "feed b": falling})
    assert not SiteIndex.of(site).halls
    points = list(curtailments(site, [100]))
    assert len({(tuple(point.tags.items()), point.time_ms) for point in points}) == 2
