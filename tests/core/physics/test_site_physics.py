"""Topology, cooling, weather, series and jobs: what the planner relies on, as properties."""

import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.jobs import Job, check_jobs, read_jobs, read_philly, read_sacct, read_swf, write_jobs
from powerhall.physics.cooling import hall_load, plant_capacity_w, plant_power_w
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather, read_weather, wet_bulb_c
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import Feed, Hall, Losses, NodeType, Rack, Row, Site
from powerhall.timeseries import Series, parse_time, read_series

KIND = NodeType("h100", "H100", 8, 2000.0, 10_200.0, 3000.0, 0.7, ())


def rack(zone: str, nodes: int = 2) -> Rack:
    return Rack(zone, "h100", tuple(f"{zone.replace('/', '-')}-n{i}" for i in range(nodes)))


NO_LOSSES = Losses()


def hall(name: str, *plants: Plant, losses: Losses = NO_LOSSES) -> Hall:
    rows = tuple(Row(f"{name}/{r}", tuple(rack(f"{name}/{r}/k{k}") for k in (1, 2))) for r in ("x", "y"))
    return Hall(name, rows, plants, losses)


SITE = Site(
    "s",
    (hall("a"), hall("b")),
    {"h100": KIND},
    feeds=(Feed("f", ("a",), 1e6), Feed("g", ("b/x", "b/y/k1"), 1e6, "f"), Feed("h", ("a/x",), 1e6, "g")),
)


def test_every_zone_is_listed_once_and_has_a_limit_entry():
    zones = list(SITE.zones())
    assert len(zones) == len(set(zones)) == 1 + 3 + 2 * (1 + 2 + 4)
    assert set(SITE.limits_w()) == set(zones)


def test_a_feed_carries_what_hangs_under_its_children_each_rack_once():
    below = [rack.zone for rack in SITE.feed_racks(SITE.feeds[0])]
    assert len(below) == len(set(below)) == 4 + 3
    assert [r.zone for r in SITE.feed_racks(SITE.feeds[2])] == ["a/x/k1", "a/x/k2"]


PLANTS = st.builds(
    Plant,
    name=st.just("p"),
    kind=st.sampled_from(["fixed", "dry_cooler", "tower_chiller"]),
    capacity_w=st.floats(1e4, 1e7),
    supply_temp_c=st.floats(15, 45),
    rated_ambient_c=st.floats(10, 35),
    cop=st.floats(2, 10),
    fan_power_w=st.floats(0, 1e5),
    pump_power_w=st.floats(0, 1e5),
)
TEMPERATURE = st.floats(-20, 50)


@given(PLANTS, TEMPERATURE, st.floats(0, 20), st.floats(0, 25))
def test_warmer_air_never_gives_more_cooling_capacity(plant, wet, spread, warmer):
    cool = plant_capacity_w(plant, Weather(wet + spread, wet))
    assert 0 <= plant_capacity_w(plant, Weather(wet + spread + warmer, wet + warmer)) <= cool + 1e-6
    assert cool <= plant.capacity_w * (1 + 1e-9)


@given(PLANTS, TEMPERATURE, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_plant_power_rises_with_heat_and_is_convex(plant, wet, shares):
    weather = Weather(wet + 5, wet)
    capacity = plant_capacity_w(plant, weather)
    if capacity < 1:
        return
    low, middle, high = (s * capacity for s in sorted(shares))
    power = [plant_power_w(plant, heat, weather) for heat in (low, middle, high)]
    assert power[0] <= power[1] + 1e-6 <= power[2] + 2e-6
    if high - low > 1e-3 * capacity:
        chord = power[0] + (power[2] - power[0]) * (middle - low) / (high - low)
        assert power[1] <= chord + 1e-6 * max(1.0, chord)


@given(st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0, 0.1), st.floats(0, 1e-8))
def test_facility_power_is_the_sum_of_its_parts_and_losses_heat_the_air(liquid, air, linear, quadratic):
    plants = (Plant("l", "fixed", 1e8, "liquid"), Plant("a", "fixed", 1e8, "air"))
    load = hall_load(hall("a", *plants, losses=Losses(100.0, linear, quadratic)), liquid, air, Weather(20, 15))
    assert load.facility_power_w == pytest.approx(liquid + air + load.cooling_power_w + load.loss_power_w)
    assert load.heat_w == {"liquid": liquid, "air": pytest.approx(air + load.loss_power_w)}
    assert load.cooled


def test_a_dry_cooler_in_air_as_warm_as_its_supply_cools_nothing():
    plant = Plant("d", "dry_cooler", 1e6, supply_temp_c=32.0)
    assert plant_capacity_w(plant, Weather(32.0, 20.0)) == 0.0
    assert not hall_load(hall("a", plant), 1e3, 0.0, Weather(40.0, 20.0)).cooled


@given(st.floats(-10, 45), st.floats(10, 99))
def test_the_wet_bulb_is_not_far_above_the_dry_bulb(dry, humidity):
    assert wet_bulb_c(dry, humidity) <= dry + 1.2  # the formula's stated error is below 1 K in this range


def test_the_wet_bulb_of_the_source_s_own_example():
    assert wet_bulb_c(20.0, 50.0) == pytest.approx(13.7, abs=0.05)


STEPS = st.lists(st.tuples(st.integers(0, 5000), st.floats(-1e6, 1e6)), min_size=1, unique_by=lambda step: step[0])


@given(STEPS, st.integers(0, 4000), st.integers(1, 700), st.integers(1, 12))
def test_sampled_slots_lie_within_the_steps_that_they_cover(steps, start, slot, count):
    steps.sort()
    series = Series(tuple(float(t) for t, _ in steps), tuple(v for _, v in steps))
    low, mean, high = (series.slots(start, slot, count, pick) for pick in ("min", "mean", "max"))
    for i in range(count):
        seen = [series.at(start + i * slot + s) for s in range(slot)]
        assert low[i] == min(seen)
        assert high[i] == max(seen)
        assert low[i] - 1e-6 <= mean[i] <= high[i] + 1e-6
        assert mean[i] == pytest.approx(sum(seen) / slot, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("text", ["", "noon", "nan", "inf", "2024-13-01"])
def test_a_wrong_time_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        parse_time(text)


def test_times_without_an_offset_are_utc_and_offsets_count():
    assert parse_time("1970-01-02") == 86_400
    assert parse_time("1970-01-01T01:00:00+01:00") == 0


def test_series_files_repeat_hours_and_come_compressed(tmp_path):
    path = tmp_path / "p.csv.gz"
    path.write_bytes(gzip.compress(b"time,price\n2024-01-01T01:00,7\n2024-01-01T00:00,5\n2024-01-01T01:00,9\n"))
    assert read_series(path, {"price": 1.0}).values == (5.0, 7.0)


@pytest.mark.parametrize("text", ["LOCATION\n", "", "time,dry_bulb_c,wet_bulb_c\n0,nan,3\n", "time,dry_bulb_c\n0,1\n"])
def test_wrong_weather_is_refused(tmp_path, text):
    for name in ("w.csv", "w.epw"):
        (tmp_path / name).write_text(text)
        with pytest.raises(Rejected, match=name):
            read_weather(tmp_path / name, 0.0)


def test_a_typical_year_is_laid_over_the_year_of_the_plan(data_dir):
    start = parse_time("2019-07-01T00:00-07:00")
    dry, wet = read_weather(data_dir / "weather" / "USA_AZ_Phoenix-Sky.Harbor.epw.gz", start)
    assert len(dry.times_s) == 8760
    day = dry.slots(int(start), 3600, 24)
    assert 38 < max(day) < 50
    assert day.index(max(day)) in range(12, 19), "the hottest hour is in the local afternoon"
    assert all(w <= d for d, w in zip(dry.values, wet.values, strict=True))


NAME = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
JOBS = st.lists(
    st.builds(
        Job,
        job_id=NAME,
        gpus=st.integers(1, 10_000),
        duration_s=st.floats(1, 1e7),
        submit_s=st.floats(0, 2e9),
        job_class=NAME,
        weight=st.floats(0.01, 1e6),
        halls=st.lists(NAME, max_size=3).map(tuple),
        deadline_s=st.none() | st.floats(0, 2e9),
        preemptible=st.booleans(),
    ),
    min_size=1,
    unique_by=lambda job: job.job_id,
)


@given(JOBS)
def test_jobs_are_read_back_as_they_were_written(tmp_path_factory, jobs):
    path = tmp_path_factory.mktemp("jobs") / "jobs.csv"
    path.write_text(write_jobs(jobs))
    assert read_jobs(path) == tuple(jobs)


@pytest.mark.parametrize(
    ("field", "value"),
    [("gpus", 0), ("duration_s", 0.0), ("duration_s", math.nan), ("weight", 0.0), ("weight", math.inf),
     ("submit_s", math.nan), ("deadline_s", math.inf), ("checkpoint_cost_s", -1.0), ("state", "running")],
)  # fmt: skip
def test_an_unsound_job_is_refused_by_name_and_field(field, value):
    fields = {"job_id": "j7", "gpus": 8, "duration_s": 60.0, field: value}
    with pytest.raises(Rejected, match=rf"here: job j7: {field}"):
        check_jobs([Job(**fields)], "here")


def test_sacct_and_swf_lines_become_jobs(tmp_path):
    sacct = tmp_path / "sacct.txt"
    sacct.write_text(
        "JobIDRaw|Submit|Elapsed|AllocTRES|Partition\n"
        "7|2024-01-01T00:00:00|1-02:03:04|cpu=8,gres/gpu=16,node=2|train\n"
        "7.batch|2024-01-01T00:00:00|1-02:03:04|cpu=8|\n"
        "8|2024-01-01T00:00:00|00:10:00|cpu=8|cpu\n"
        "9|2024-01-01T00:00:00|10:30|gres/gpu:a100=4,gres/gpu:h100=2|mix\n"
    )
    first, second = read_sacct(sacct)
    assert (first.job_id, first.gpus, first.duration_s, first.job_class) == ("7", 16, 93_784.0, "train")
    assert (second.gpus, second.duration_s) == (6, 630.0)
    swf = tmp_path / "trace.swf"
    swf.write_text("; UnixStartTime: 1000\n 1 5 -1 60 4 -1 -1 4 100 -1 1 1 1 1 2 -1 -1 -1\n 2 6 -1 -1 4 " + "-1 " * 13)
    (job,) = read_swf(swf)
    assert (job.gpus, job.submit_s, job.duration_s, job.job_class) == (4, 1005.0, 60.0, "queue2")


def test_the_real_trace_is_read_whole(data_dir):
    jobs = read_philly(data_dir / "jobs" / "philly_jobs.csv.gz")
    assert 80_000 < len(jobs) <= 82_247
    assert max(job.gpus for job in jobs) == 128
