"""The twin's telemetry read back: series stay in step with the site's meter, whatever an interruption left out."""

from itertools import permutations

import pytest

from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_twin.report.measured import agents_against_meters, read_telemetry

START_S = 1_700_000_000.0
SAMPLE_S = 10.0


def meter_points(site, time_s):
    """One sample's points, as the twin's recorder names them."""
    time_ms = int(time_s * 1000)
    for hall in site.halls:
        fields = {"it_power_w": 90_000.0, "cooling_power_w": 9_000.0, "budget_w": 120_000.0}
        yield Point("hall_10s", {"site": site.name, "hall": hall.zone}, fields, time_ms)
    fields = {"facility_power_w": 300_000.0, "it_power_w": 270_000.0, "budget_w": 400_000.0}
    yield Point("site_10s", {"site": site.name}, fields, time_ms)


@pytest.mark.parametrize(("first", "second"), list(permutations(("hall_10s", "site_10s"))))
def test_a_half_written_sample_does_not_shift_the_series(tmp_path, site, first, second):
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    try:
        for at in range(4):
            points = list(meter_points(site, START_S + at * SAMPLE_S))
            written = [p for p in points if p.measurement == first or (p.measurement == second and at != 2)]
            store.write(b"".join(map(encode, written)))
        telemetry = read_telemetry(store, site, START_S, START_S + 4 * SAMPLE_S, SAMPLE_S)
    finally:
        store.close()
    times_s = [START_S + at * SAMPLE_S for at in range(4) if at != 2 or first == "site_10s"]
    assert telemetry.times_s == tuple(times_s)
    for series in (telemetry.site, *telemetry.halls.values()):
        assert all(len(column) == len(times_s) for column in series.values())
    halls_w = [telemetry.halls[hall.zone]["it_power_w"] for hall in site.halls]
    expected = (90_000.0, 90_000.0, None, 90_000.0) if first == "site_10s" else (90_000.0,) * 3
    assert halls_w == [expected] * len(site.halls)
    assert agents_against_meters(site, telemetry, SAMPLE_S) is None, "no agent wrote anything"
