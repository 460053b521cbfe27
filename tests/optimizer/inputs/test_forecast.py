"""Forecasts: shapes of curves, few samples leave the prior, implausible readings are not learned, margins shrink."""

import csv
import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.jobs import Job
from powerhall.physics.cooling import hall_load
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot, read_plan
from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.cli import main
from powerhall_optimizer.inputs.durations import expected_jobs
from powerhall_optimizer.inputs.forecast import (
    Draw,
    History,
    Sample,
    draw_of,
    fit_curve,
    learned_classes,
    measured_draws,
)
from powerhall_optimizer.inputs.margins import CoolingReading, margins_w, scaled_plants

NOW_S = 1_700_000_100.0
replace = msgspec.structs.replace


@given(
    st.lists(
        st.tuples(st.floats(50, 1500), st.floats(0, 3000), st.floats(0.1, 100)),
        min_size=1,
        max_size=8,
        unique_by=lambda p: round(p[0], 1),
    )
)
def test_fitted_curves_never_fall_and_bend_only_downwards(points):
    x, y, weight = (np.array(column) for column in zip(*sorted(points), strict=True))
    curve = fit_curve(x, y, weight)
    slopes = np.diff(curve) / np.diff(x) if len(x) > 1 else np.zeros(0)
    assert (slopes >= -1e-6).all()
    assert (np.diff(slopes) <= 1e-6 + 1e-6 * np.abs(slopes[:-1])).all()


def test_a_curve_of_the_right_shape_is_found_exactly():
    x = [300.0, 450.0, 600.0, 700.0]
    y = [200.0, 310.0, 380.0, 380.0]
    assert fit_curve(x, y, [1.0] * 4) == pytest.approx(y)


def test_measured_speed_curves_of_real_gpus_fit_within_a_few_percent(data_dir):
    groups: dict[tuple[str, ...], dict[float, float]] = {}
    with open(data_dir / "power_cap_curves" / "zeus_time_vs_power_limit.csv", newline="") as file:
        for row in csv.DictReader(file):
            key = row["gpu"], row["network"], row["batch_size"], row["optimizer"]
            groups.setdefault(key, {})[float(row["power_limit"])] = float(row["time_per_epoch"])
    errors = []
    for times in groups.values():
        if len(times) < 4:
            continue
        limits = sorted(times)
        speed = np.array([times[limits[-1]] / times[limit] for limit in limits])
        errors.append(float(np.abs(fit_curve(limits, speed, [1.0] * len(limits)) - speed).max()))
    assert len(errors) > 20
    assert np.median(errors) < 0.02


def samples(values, start=0.0):
    return [Sample(start + i, f"j{i}", value) for i, value in enumerate(values)]


def test_few_samples_leave_the_prior_and_many_replace_it():
    assert draw_of([], 1.0) == Draw(1.0, 0.15, 0)
    assert draw_of(samples([0.6]), 1.0).mean == pytest.approx(1 - 0.4 / 6)
    draw = random.Random(1)
    many = draw_of(samples([draw.gauss(0.6, 0.05) for _ in range(300)]), 1.0)
    assert many.mean == pytest.approx(0.6, abs=0.02)
    assert many.spread == pytest.approx(0.07, abs=0.03)


def test_a_few_wild_samples_move_little():
    tame = draw_of(samples([0.7] * 60), 1.0)
    wild = draw_of(samples([0.7] * 58 + [3.0, 3.0]), 1.0)
    assert wild.mean == pytest.approx(tame.mean, abs=0.02)


def running(job_id, nodes, gpus=16, mode="full", job_class="train", age_s=3600.0):
    return Job(
        job_id, gpus, 3600.0, job_class=job_class, state="running", hall="a", node_type="h100", mode=mode,
        nodes=nodes, start_s=NOW_S - age_s,
    )  # fmt: skip


def test_draw_is_measured_above_idle_on_nodes_that_a_job_has_for_itself(site):
    job = running("j", "a-r1-k01-n[01-02]")
    due_w = 2 * (2000 + 8 * (1200 - 250))
    (sample,) = measured_draws(site, [job], {f"a-r1-k01-n0{i}": due_w / 2 for i in (1, 2)}, NOW_S)["train full"]
    assert sample.factor == pytest.approx(1.0)
    half = {f"a-r1-k01-n0{i}": 2000 + 0.5 * 8 * 950 for i in (1, 2)}
    assert measured_draws(site, [job], half, NOW_S)["train full"][0].factor == pytest.approx(0.5)


@pytest.mark.parametrize("watts", [math.nan, math.inf, -30.0, 0.0, 90_000.0, 2000.0])
def test_implausible_readings_are_not_learned(site, watts):
    job = running("j", "a-r1-k01-n[01-02]")
    assert measured_draws(site, [job], {"a-r1-k01-n01": watts, "a-r1-k01-n02": watts}, NOW_S) == {}


def test_young_jobs_shared_nodes_and_missing_readings_are_not_learned(site):
    full = {f"a-r1-k01-n0{i}": 9600.0 for i in (1, 2)}
    assert measured_draws(site, [running("j", "a-r1-k01-n[01-02]", age_s=60)], full, NOW_S) == {}
    assert measured_draws(site, [running("j", "a-r1-k01-n[01-03]", 24)], full, NOW_S) == {}
    shared = [running("j", "a-r1-k01-n01", 4), running("k", "a-r1-k01-n01", 4)]
    assert measured_draws(site, shared, full, NOW_S) == {}


def test_learned_draws_change_the_class_and_unseen_classes_keep_the_prior(site):
    history = History().updated({"train full": samples([0.6] * 50, NOW_S)}, (), NOW_S, 7, speed=False)
    site = msgspec.structs.replace(site, node_types={"h100": site.node_types["h100"]})
    classes, learned = learned_classes(site, history)
    assert classes["train"].draw["full"] == pytest.approx(0.64, abs=0.02)
    assert classes["train"].draw["low"] <= 1.3
    above = {m.name: m.gpu_power_w - 250 for m in site.node_types["h100"].modes}
    watts = [classes["train"].draw[m] * above[m] for m in ("low", "eco", "full")]
    assert watts[0] <= watts[1] + 0.01 <= watts[2] + 0.02, "more allowed power never draws less"
    assert "never seen" not in classes
    assert learned["train full"].jobs == 50


def test_old_samples_are_forgotten_and_one_job_counts_once():
    old = History().updated({"a full": samples([0.5] * 3, 0.0)}, (), 10.0, 1.0, speed=False)
    assert len(old.draws["a full"]) == 3
    again = old.updated({"a full": samples([0.6] * 3, 20.0)}, (), 30.0, 1.0, speed=False)
    assert [s.factor for s in again.draws["a full"]] == [0.6] * 3
    assert again.updated({}, (), 10 * 86_400.0, 1.0, speed=False).draws == {}


def test_speed_is_learned_from_reported_progress(site):
    before = running("j", "a-r1-k01-n[01-02]", mode="low")
    later = msgspec.structs.replace(before, duration_s=3600.0 - 0.9 * 300)
    history = History().updated({}, [before], NOW_S, 7, speed=True).updated({}, [later], NOW_S + 300, 7, speed=True)
    assert history.speeds["train low"][0].factor == pytest.approx(0.9)
    classes, _ = learned_classes(site, history)
    assert 0.75 < classes["train"].speed["low"] < 0.9
    assert classes["train"].speed["full"] >= classes["train"].speed["eco"] >= classes["train"].speed["low"]


def margin_snapshot(site, jobs):
    return Snapshot(0, 0, 300, 12, site, tuple(jobs))


def test_margins_shrink_with_the_number_of_jobs_at_the_site_but_not_in_a_rack(site):
    learned = {"train full": Draw(0.6, 0.08, 50)}
    few = margins_w(margin_snapshot(site, [Job("a", 64, 3600.0)]), learned, 0.01)
    many = margins_w(margin_snapshot(site, [Job(f"a{i}", 4, 3600.0) for i in range(64)]), learned, 0.01)
    assert many["phx"] == pytest.approx(few["phx"] / 4, rel=0.05)
    assert many["a/r1/k01"] == few["a/r1/k01"] > 0
    assert many["phx"] / 300e3 < many["a/r1/k01"] / 41e3


def test_a_power_limit_bounds_the_error_and_nothing_learned_means_no_margin(site):
    snapshot = margin_snapshot(site, [Job("a", 64, 3600.0)])
    assert margins_w(snapshot, {}, 0.01) == {}
    assert margins_w(snapshot, {"train full": Draw(1.0, 0.3, 50)}, 0.01) == {}


def test_cooling_is_scaled_to_measurements(site):
    hall = site.hall("b")
    weather = Weather(20.0, 15.0)
    model = hall_load(hall, 0.0, 80e3, weather).cooling_power_w
    readings = [CoolingReading(80e3, 1.4 * model, weather)] * 60 + [CoolingReading(80e3, math.nan, weather)]
    worse = scaled_plants(hall, 0.0, readings)
    assert hall_load(worse, 0.0, 80e3, weather).cooling_power_w == pytest.approx(1.37 * model, rel=0.02)
    assert scaled_plants(hall, 0.0, []) == hall


def test_a_round_learns_from_the_store_and_the_next_plan_uses_it(tmp_path, site_text):
    (tmp_path / "site.toml").write_text(site_text)
    jobs = [running("r", "a-r1-z-n[01-04]", 32), Job("w", 8, 3600.0, job_class="train")]
    (tmp_path / "jobs.json").write_bytes(msgspec.json.encode(jobs))
    url = f"sqlite:///{tmp_path}/store.db"
    store = open_store(url)
    for node in [f"a-r1-z-n0{i}" for i in (1, 2, 3, 4)]:
        tags = {"site": "phx", "hall": "a", "rack": "z", "node": node}
        store.write(encode(Point("node", tags, {"power_w": 2000 + 0.7 * 8 * 950.0}, int(NOW_S * 1000) - 5000)))
    arguments = ["round", "--quiet", "--site", str(tmp_path / "site.toml"), "--jobs", str(tmp_path / "jobs.json")]
    arguments += [
        "--store",
        url,
        "--start",
        str(NOW_S),
        "--horizon",
        "4h",
        "--seconds",
        "1",
        "--out",
        str(tmp_path / "p.json"),
    ]
    assert main(arguments) == 0
    plan = read_plan(tmp_path / "p.json")
    assert plan.snapshot.site.job_classes["train"].draw["full"] == pytest.approx(0.95, abs=0.02)
    history = msgspec.json.decode(store.latest_document("draws", "phx"), type=History)
    assert history.draws["train full"][0].factor == pytest.approx(0.7)
    assert plan.snapshot.margin_w["a"] > 0
    store.close()


def ended(history, job, now_s, *, after_s):
    """The history after a job of an hour has run `after_s` and left the queue."""
    left = replace(job, duration_s=3600.0 - after_s)
    history = history.updated({}, (left,), now_s, 7.0, speed=False)
    return history.updated({}, (), now_s + 2.0, 7.0, speed=False)


def test_remaining_work_is_expected_from_how_long_jobs_of_the_class_took():
    history = History()
    for number in range(30):
        took_s = 900.0 if number < 24 else 2700.0
        job = Job(
            f"h{number}", 8, 3600.0, job_class="c", state="running", hall="a", mode="full", start_s=NOW_S - took_s
        )
        history = ended(history, job, NOW_S, after_s=took_s)
    parts = [sample.factor for sample in history.durations["c"]]
    assert len(parts) == 30
    assert min(parts) == pytest.approx(0.25, abs=0.01)
    waiting = Job("w", 8, 7200.0, job_class="c")
    other = Job("o", 8, 7200.0, job_class="never seen")
    most, unseen = expected_jobs(history, (waiting, other), 0.9)
    assert most.duration_s == pytest.approx(0.75 * 7200, rel=0.01), "the 90 % quantile is a long one"
    assert unseen.duration_s == 7200.0
    assert expected_jobs(history, (waiting,), 0.7)[0].duration_s == pytest.approx(0.25 * 7200, rel=0.01)
    assert expected_jobs(history, (waiting,), 1.0) == (waiting,)
    runs = replace(job, job_id="r", duration_s=2400.0, start_s=NOW_S - 1200.0)
    history = history.updated({}, (runs,), NOW_S, 7.0, speed=False)
    (left,) = expected_jobs(history, (runs,), 0.7)
    assert left.duration_s == pytest.approx((0.75 - 1 / 3) * 3600, rel=0.01), "it has outlived the short ones"


def test_few_jobs_or_a_long_gap_between_rounds_give_no_duration_forecast():
    job = Job("h", 8, 3600.0, job_class="c", state="running", hall="a", mode="full", start_s=NOW_S - 600.0)
    seen = History().updated({}, (job,), NOW_S, 7.0, speed=False)
    assert not seen.updated({}, (), NOW_S + 7200.0, 7.0, speed=False).durations
    once = seen.updated({}, (), NOW_S + 60.0, 7.0, speed=False)
    assert len(once.durations["c"]) == 1
    waiting = Job("w", 8, 7200.0, job_class="c")
    assert expected_jobs(once, (waiting,), 0.9) == (waiting,)
    assert not seen.updated({}, (replace(job, state="waiting"),), NOW_S + 60, 7.0, speed=False).durations, (
        "it was requeued"
    )


def test_the_stored_history_keeps_the_names_of_its_fields():
    body = msgspec.json.encode(History(durations={"c": (Sample(1.0, "j", 0.5),)}))
    assert msgspec.json.decode(body)["lengths"] == {"c": [[1.0, "j", 0.5]]}
    assert msgspec.json.decode(body, type=History).durations["c"][0].factor == 0.5
