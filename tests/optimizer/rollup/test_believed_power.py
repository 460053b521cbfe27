"""What the roll-up believes: garbage, a BMC that shows a part, meters against nodes; and cooling per medium."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.physics.plants.plant import Plant
from powerhall.site.site_file import read_site
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.store import Query, Row, Select, Store, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import MEASUREMENTS
from powerhall_optimizer.rollup.node_power import node_power
from powerhall_optimizer.rollup.readings import NodeReading
from powerhall_optimizer.rollup.rollup_cycle import Rollup

START_S = 1_790_000_100
SOURCES = ("it_measured_w", "it_estimated_w", "it_assumed_w")
KIND = NodeType("h100", "H100", 2, 500.0, 2550.0, 800.0, 0.7, (Mode("full", "power_limit", 1200.0, 1.0, 700.0),))
RACKS = (Rack("h1/a/r0", "h100", ("n0", "n1")), Rack("h1/a/r1", "h100", ("n2", "n3")))
PLANTS = (Plant("cdu", "fixed", 5000.0, serves="liquid"), Plant("crah", "fixed", 9000.0, serves="air"))
HALL = Hall("h1", (RackRow("h1/a", RACKS),), PLANTS, Losses())
SITE = Site("s", (HALL,), {"h100": KIND}, meters={"h1": ("feed-a", "feed-b"), "h1/a/r0": ("pdu-r0",)})
NODES = [node for rack in RACKS for node in rack.nodes]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def gpus(node: str, *power_w: float | None, at_s: int = START_S, first: int = 0) -> bytes:
    """One point per second for each GPU and power; None leaves the GPU out."""
    rack = next(rack.zone for rack in RACKS if node in rack.nodes)
    tags = {"site": "s", "hall": "h1", "rack": rack, "node": node}
    return b"".join(
        encode(Point("gpu", {**tags, "gpu": str(gpu)}, {"power_w": watts}, (at_s + second) * 1000))
        for gpu, watts in enumerate(power_w, start=first)
        if watts is not None
        for second in range(10)
    )


def bmc(node: str, power_w: float, at_s: int = START_S) -> bytes:
    rack = next(rack.zone for rack in RACKS if node in rack.nodes)
    tags = {"site": "s", "hall": "h1", "rack": rack, "node": node}
    return encode(Point("node", tags, {"power_w": power_w}, at_s * 1000))


def meter(device: str, power_w: float | None, at_s: int = START_S) -> bytes:
    tags = {"site": "s", "hall": "h1", "device": device, "point": "power_w"}
    fields = {"quality": 0.0} if power_w is None else {"value": power_w, "quality": 1.0}
    return encode(Point("facility", tags, fields, at_s * 1000))


def stored(store: Store, measurement: str, **where: str) -> list[Row]:
    entry = MEASUREMENTS[measurement]
    query = Query(measurement, tuple(Select(field.name) for field in entry.fields), where, entry.tags)
    return store.query(query, START_S - 1000, START_S + 1000)


def rolled(store: Store, seconds: int = 10, site: Site = SITE) -> Row:
    Rollup(store, site, ("h1",), True).run(START_S, START_S + seconds)
    for row in stored(store, "hall_10s"):
        assert sum(row.number(name) for name in SOURCES) == pytest.approx(row.number("it_power_w"))
    return stored(store, "hall_10s")[-1]


def details(store: Store) -> list[str]:
    return [str(row.values["detail"]) for row in stored(store, "event", kind="sensor_suspect")]


@pytest.mark.parametrize("garbage_w", [4_294_967.295, 65_535.0, -1.0])
def test_one_garbage_reading_of_a_gpu_is_dropped_counted_and_told(store: Store, garbage_w: float) -> None:
    for node in NODES:
        store.write(gpus(node, 700.0, 700.0))
    store.write(encode(Point("gpu", {"site": "s", "hall": "h1", "rack": "h1/a/r0", "node": "n0", "gpu": "1"},
                             {"power_w": garbage_w}, (START_S + 5) * 1000)))  # fmt: skip
    row = rolled(store)
    assert row.number("it_power_w") == pytest.approx(4 * 2400)
    assert row.number("readings_dropped") == 1
    assert details(store) == [f"n0: GPU 1 shows {garbage_w:,.0f} W: not believed"]


def test_a_gpu_that_shows_only_garbage_counts_at_its_worst_and_one_that_is_gone_too(store: Store) -> None:
    for node in NODES[2:]:
        store.write(gpus(node, 700.0, 700.0))
    store.write(gpus("n0", 700.0, 4_294_967.0) + gpus("n1", 700.0, None))
    row = rolled(store)
    assert [row.number(name) for name in SOURCES] == pytest.approx([0, 4 * 1200 + 2 * 1200, 2 * 1275])


@pytest.mark.parametrize(("listed", "assumed_w"), [(None, 1275), (2, 1275), (1, 250), (9, 1275), (0, 250)])
def test_a_gpu_that_the_driver_does_not_list_counts_as_idle(listed: int | None, assumed_w: float) -> None:
    found = node_power(NodeReading([700.0], listed=listed), KIND)
    assert (found.estimated_w, found.assumed_w) == (pytest.approx(1200), pytest.approx(assumed_w))


@pytest.mark.parametrize("bmc_w", [2.4, 118.0, 249.0])
@pytest.mark.parametrize(("gpus_w", "counted_w"), [([], 2550.0), ([90.0], 1275.0 + 250.0)])
def test_a_bmc_far_below_an_idle_node_is_not_believed_where_its_gpus_are_silent(gpus_w, counted_w, bmc_w) -> None:
    """It shows kilowatts, or one GPU."""
    found = node_power(NodeReading(list(gpus_w), power_w=bmc_w), KIND)
    assert (found.measured_w, found.power_w) == (0.0, pytest.approx(counted_w))
    assert found.doubts[0].startswith(f"the BMC shows {bmc_w:,.0f} W while ")
    assert node_power(NodeReading(list(gpus_w), power_w=260.0), KIND).measured_w == 260.0


@pytest.mark.parametrize(
    ("bmc_w", "sources", "told"),
    [
        (118.0, [0, 2400, 0], "n0: the BMC shows 118 W while the GPUs draw 1,400 W: not believed"),
        (0.0, [0, 2400, 0], "n0: the BMC shows 0 W while the GPUs draw 1,400 W: not believed"),
        (-5.0, [0, 2400, 0], "n0: the BMC shows -5 W: not believed"),
        (4_294_967.0, [0, 2400, 0], "n0: the BMC shows 4,294,967 W: not believed"),
        (1_300.0, [1300, 0, 0], None),
        (1_950.0, [1950, 0, 0], None),
        (3_000.0, [3000, 0, 0], None),
    ],
)
def test_a_bmc_is_believed_where_it_can_be_the_node(
    store: Store, bmc_w: float, sources: list[float], told: str | None
) -> None:
    for node in NODES:
        store.write(gpus(node, 700.0, 700.0))
    store.write(bmc("n0", bmc_w))
    row = rolled(store)
    others = [0, 3 * 2400, 0]
    assert [row.number(name) for name in SOURCES] == pytest.approx(
        [a + b for a, b in zip(sources, others, strict=True)]
    )
    assert details(store) == ([] if told is None else [told])
    assert row.number("readings_dropped") == len(details(store))


def test_a_reading_that_stays_implausible_is_told_once_and_again_after_it_was_well(store: Store) -> None:
    for bucket, watts in enumerate((1950.0, 118.0, 118.0, 1950.0, 118.0)):
        at_s = START_S + 10 * bucket
        store.write(b"".join(gpus(node, 700.0, 700.0, at_s=at_s) for node in NODES) + bmc("n0", watts, at_s))
    for _ in range(2):
        rolled(store, 50)
    assert [row.time_s - START_S for row in stored(store, "event", kind="sensor_suspect")] == [10, 40]


def test_a_node_without_gpu_readings_is_measured_by_its_bmc_and_assumed_when_that_shows_garbage(store: Store) -> None:
    for node in NODES[1:]:
        store.write(gpus(node, 700.0, 700.0))
    store.write(bmc("n0", 900.0))
    assert [rolled(store).number(name) for name in SOURCES] == pytest.approx([900, 7200, 0])
    store.write(bmc("n0", 65_535.0))
    row = rolled(store)
    assert [row.number(name) for name in SOURCES] == pytest.approx([0, 7200, 2550])
    assert (row.number("nodes_stale"), row.number("readings_dropped")) == (1, 1)


METERS = {
    "more than the nodes: switches are counted": ((6000.0, 6000.0), 12_000.0, 12_000.0, 0),
    "less than the nodes with their share: the nodes count": ((4000.0, 4000.0), 9600.0, 8000.0, 0),
    "less than the GPUs alone": ((2000.0, 2000.0), 9600.0, None, 1),
    "more than the nodes can draw": ((9000.0, 9000.0), 9600.0, None, 1),
    "garbage": ((4_294_967.0, 0.0), 9600.0, None, 1),
    "negative": ((-8000.0, 0.0), 9600.0, None, 1),
    "one of two feeds is silent": ((6000.0, None), 9600.0, None, 0),
    "standby feed at 0 W": ((10_000.0, 0.0), 10_000.0, 10_000.0, 0),
}


@pytest.mark.parametrize(("watts", "it_w", "meter_w", "dropped"), METERS.values(), ids=METERS)
def test_the_meters_of_a_hall_are_held_against_its_nodes(
    store: Store, watts: tuple[float, float | None], it_w: float, meter_w: float | None, dropped: int
) -> None:
    for node in NODES:
        store.write(gpus(node, 700.0, 700.0))
    store.write(meter("feed-a", watts[0]) + meter("feed-b", watts[1]))
    row = rolled(store)
    assert (row.number("it_power_w"), row.number("meter_power_w")) == (pytest.approx(it_w), meter_w)
    assert row.number("readings_dropped") == dropped == len(details(store))
    assert all(text.startswith("h1: feed-a, feed-b: ") for text in details(store))
    assert stored(store, "site_10s")[0].number("it_power_w") == pytest.approx(it_w)


def test_a_pdu_is_held_against_its_rack_and_counts_in_the_hall(store: Store) -> None:
    for node in NODES:
        store.write(gpus(node, 700.0, 700.0))
    store.write(meter("pdu-r0", 5500.0))
    assert rolled(store).number("it_power_w") == pytest.approx(5500 + 4800)
    store.write(meter("pdu-r0", 100.0))
    assert rolled(store).number("it_power_w") == pytest.approx(9600)
    assert details(store) == ["h1/a/r0: pdu-r0: 100 W, while its nodes draw 2,800 W: not believed"]


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 700)), max_size=2),
    st.one_of(st.none(), st.floats(0, 3500)),
)
def test_a_node_is_never_counted_below_what_it_is_known_to_draw(gpu_w: list[float | None], bmc_w: float | None) -> None:
    known = [watts for watts in gpu_w if watts is not None]
    found = node_power(NodeReading(list(known), bmc_w), KIND)
    assert found.power_w >= 0.9 * sum(known)
    assert found.power_w == pytest.approx(found.measured_w + found.estimated_w + found.assumed_w)
    if len(known) < KIND.gpus and not found.measured_w:
        assert found.assumed_w > 0


def test_the_sources_of_a_sum_are_kept_over_five_minutes(store: Store) -> None:
    for at_s, node in itertools.product(range(START_S, START_S + 310, 10), NODES):
        store.write(gpus(node, 700.0, 700.0, at_s=at_s))
    Rollup(store, SITE, ("h1",), True).run(START_S, START_S + 310)
    (coarse,) = stored(store, "hall_5m")
    assert [coarse.number(name) for name in SOURCES] == pytest.approx([0, 9600, 0])
    assert coarse.number("cooling_load_percent") == pytest.approx(100 * 6720 / 5000)


def test_a_full_liquid_loop_is_not_hidden_by_air_that_has_room(store: Store) -> None:
    """A liquid loop at 99.98 % showed as 82 %, and its alert never fired."""
    plants = (Plant("cdu", "fixed", 6720 / 0.9998, serves="liquid"), Plant("crah", "fixed", 4984.0, serves="air"))
    site = msgspec.structs.replace(SITE, halls=(msgspec.structs.replace(HALL, plants=plants),))
    for node in NODES:
        store.write(gpus(node, 700.0, 700.0))
    row = rolled(store, site=site)
    assert 100 * row.number("heat_w") / row.number("cooling_capacity_w") == pytest.approx(82, abs=0.2)
    assert row.number("cooling_load_percent") == pytest.approx(99.98)
    assert row.number("cooling_headroom_w") == pytest.approx(6720 / 0.9998 - 6720)
    assert (row.number("heat_liquid_w"), row.number("heat_air_w")) == (pytest.approx(6720), pytest.approx(2880))
    assert row.number("cooling_capacity_air_w") == 4984
    (whole,) = stored(store, "site_10s")
    assert whole.number("cooling_load_percent") == pytest.approx(99.98)


def test_one_plant_for_all_heat_has_a_load_and_no_media(store: Store) -> None:
    halls = (msgspec.structs.replace(HALL, plants=(Plant("c", "fixed", 12_000.0),)),)
    for node in NODES:
        store.write(gpus(node, 700.0, 700.0))
    row = rolled(store, site=msgspec.structs.replace(SITE, halls=halls))
    assert row.number("cooling_load_percent") == pytest.approx(80)
    assert row.number("heat_liquid_w") is None


SITE_FILE = """
[site]
name = "lab"
[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
modes = [{name = "full", gpu_power = "1.2 kW", speed = 1.0}]
[[halls]]
name = "h1"
meters = ["feed-a", "feed-b"]
rows = [{name = "r", racks = [{node_type = "h100", count = 2, nodes = 4, meters = ["pdu-{rack}-a", "pdu-{rack}-b"]}]}]
"""


def test_a_site_file_names_the_meters_of_halls_and_racks(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SITE_FILE)
    site, _ = read_site(path)
    assert site.meters == {
        "h1": ("feed-a", "feed-b"),
        "h1/r/k01": ("pdu-k01-a", "pdu-k01-b"),
        "h1/r/k02": ("pdu-k02-a", "pdu-k02-b"),
    }
    path.write_text(SITE_FILE.replace("pdu-{rack}-b", "feed-a"))
    with pytest.raises(Exception, match="meters: 'feed-a': must name each device once"):
        read_site(path)
