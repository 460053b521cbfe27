"""Names and texts of every character come back equal from each store, whatever stands beside them in the line.

`make round-trip` sends 10,000 points; the suite sends some hundreds. The random points come from here and from no code
of the store's; the real servers' parsers are the judges of the line protocol.
"""

import os
import random
from collections.abc import Iterator

import pytest

from powerhall.store import Query, Select, Store, open_store
from powerhall.store.line_protocol import Point, encode, parse_lines
from powerhall_agent.base.encoder import Series
from powerhall_agent.daemon.prometheus import Exposition

COUNT = int(os.environ.get("POWERHALL_ROUND_TRIP", "300"))
TAGS = ("site", "hall", "rack", "node", "gpu")
SPECIAL = ",= \\\"\n\r\t%0A5C25#'_\0\u2028\x85\U0001f525"
ODD = (
    *SPECIAL,
    "",
    "\\\\",
    "a\\",
    "a\\,b",
    "a\\ b",
    "a\\=",
    "%0A",
    "%250A",
    "%",
    "\\n",
    '"',
    "#a",
    " ",
    "a ",
    "\r\n",
    "a,b=c d",
)


def _text(rng: random.Random) -> str:
    return "".join(_character(rng) for _ in range(rng.randrange(9)))


def _character(rng: random.Random) -> str:
    while True:
        code = ord(rng.choice(SPECIAL)) if rng.random() < 0.5 else rng.randrange(0x110000)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def _points(count: int, seed: int) -> list[Point]:
    rng = random.Random(seed)
    points = []
    for number in range(count):
        if number < len(ODD) * len(TAGS):
            tags = {TAGS[number % len(TAGS)]: ODD[number // len(TAGS)]}
            job = ODD[number // len(TAGS)]
        else:
            tags, job = {tag: _text(rng) for tag in TAGS}, _text(rng)
        fields: dict[str, float | str] = {"job": job, "energy_j": float(number)}
        points.append(Point("job_interval", {k: v for k, v in tags.items() if v}, fields, 1_700_000_000_000 + number))
    return points


def _told(text: object) -> str:
    """Line breaks of a text are stored as spaces."""
    return str(text).replace("\n", " ").replace("\r", " ")


@pytest.fixture(params=["sqlite", "influxdb 1.6", "influxdb 1.8"])
def store(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Store]:
    if request.param == "sqlite":
        opened = open_store(f"sqlite:///{tmp_path}/t.db")
    else:
        rig = request.getfixturevalue("influx" if request.param == "influxdb 1.6" else "influx_1_8")
        opened = open_store(rig.url(rig.database("round_trip")))
    yield opened
    opened.close()


@pytest.mark.rig
def test_every_character_in_every_place_comes_back_equal(store: Store) -> None:
    points = _points(COUNT, seed=int(os.environ.get("POWERHALL_SEED", "1")))
    lines = [encode(point) for point in points]
    for start in range(0, len(lines), 500):
        store.write(b"".join(lines[start : start + 500]))
    query = Query("job_interval", (Select("job"), Select("energy_j")), group_by=TAGS)
    rows = store.query(query, 1_699_999_999.0, 1_700_100_000.0)
    found = {row.number("energy_j"): ({k: v for k, v in row.tags.items() if v}, row.values["job"]) for row in rows}
    wrong = [
        (point, found.get(float(number)))
        for number, point in enumerate(points)
        if found.get(float(number)) != (point.tags, _told(point.fields["job"]))
    ]
    assert len(found) == len(points)
    assert not wrong, wrong[:3]


@pytest.mark.rig
def test_a_condition_finds_a_name_of_any_characters(store: Store) -> None:
    points = [point for point in _points(60, seed=2) if point.tags.get("node")]
    store.write(b"".join(encode(point) for point in points))
    for point in points:
        query = Query("job_interval", (Select("energy_j"),), {"node": point.tags["node"]}, ("node",))
        rows = store.query(query, 1_699_999_999.0, 1_700_100_000.0)
        want = {p.fields["energy_j"] for p in points if p.tags["node"] == point.tags["node"]}
        assert {row.values["energy_j"] for row in rows} == want


def test_lines_are_read_back_by_every_reader_of_the_agent() -> None:
    exposition = Exposition()
    for point in _points(2000, seed=3):
        line = encode(point)
        assert line.count(b"\n") == 1
        assert b"\r" not in line
        assert (
            Series("job_interval", point.tags).encode(point.fields, point.time_ms).split(b" ")[0] == line.split(b" ")[0]
        )
        [read] = parse_lines(line)
        assert (read.tags, read.fields["job"]) == (point.tags, _told(point.fields["job"]))
        exposition.update(line)
    assert exposition.text().count("powerhall_job_interval_energy_joules{") > 1000
