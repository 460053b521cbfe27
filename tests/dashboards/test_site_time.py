"""Pages show the local time of the site that the newest plan names."""

import json
from pathlib import Path

import pytest

from powerhall.forecasts.page_times import local_words, moment_in, near, page_zone
from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_dashboards.cli import main
from powerhall_dashboards.preview.overview import overview
from powerhall_dashboards.preview.site_time import site_zone
from rigs.site_data import SiteData

NIGHT_S = 1_793_000_000
"""2026-10-26T07:33:20Z, the day after Europe's clocks went back; in New York it is night."""


@pytest.mark.parametrize(
    ("zone", "time_s", "shown"),
    [
        ("Europe/Berlin", NIGHT_S, "2026-10-26 08:33:20 CET (UTC+01:00)"),
        ("Europe/Berlin", NIGHT_S - 2 * 86_400, "2026-10-24 09:33:20 CEST (UTC+02:00)"),
        ("America/New_York", NIGHT_S, "2026-10-26 03:33:20 EDT (UTC-04:00)"),
        ("Asia/Kolkata", NIGHT_S, "2026-10-26 13:03:20 IST (UTC+05:30)"),
        ("UTC", NIGHT_S, "2026-10-26 07:33:20 UTC"),
        ("", NIGHT_S, "2026-10-26 07:33:20 UTC"),
        ("Europe/London", NIGHT_S, "2026-10-26 07:33:20 UTC"),
        ("Mars/Olympus", NIGHT_S, "2026-10-26 07:33:20 UTC"),
    ],
)
def test_a_moment_is_written_with_its_zone(zone: str, time_s: float, shown: str) -> None:
    assert moment_in(page_zone(zone, time_s), time_s) == shown


def test_two_moments_of_the_repeated_hour_stay_two_on_a_page() -> None:
    """At 2026-10-25T01:00Z Berlin's clocks go back: 02:30 comes twice, and a page that shows both keeps them apart."""
    end_s = 1_792_890_000 + 3600  # 01:40Z and an hour
    zone = page_zone("Europe/Berlin", end_s)
    assert near(end_s - 7200, end_s, zone) != near(end_s - 3600, end_s, zone)


def test_times_within_a_sentence_of_a_plan_are_local() -> None:
    zone = page_zone("America/New_York", NIGHT_S)
    words = "had it at 2026-10-26T08:35Z; could start at 2026-10-27T05:20Z, 2026-10-26T09:00:30Z"
    assert local_words(words, NIGHT_S, zone) == "had it at 04:35; could start at 10-27 01:20, 05:00"
    assert local_words("job 2026-10-26 of 20:35Z", NIGHT_S, zone) == "job 2026-10-26 of 20:35Z"


def test_the_newest_plan_names_the_zone_of_every_page(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'site.db'}"
    store = open_store(url)
    assert moment_in(site_zone(store, ("phx",), NIGHT_S), NIGHT_S).endswith("UTC")
    store.write(SiteData(end_s=NIGHT_S, hours=0.5).lines())
    for age_s, zone in ((7200, "Europe/Berlin"), (30, "America/Phoenix")):
        store.write(encode(Point("plan", {"site": "phx"}, {"timezone": zone}, (NIGHT_S - age_s) * 1000)))
    zone = site_zone(store, ("phx",), NIGHT_S)
    assert moment_in(zone, NIGHT_S) == "2026-10-26 00:33:20 MST (UTC-07:00)"
    ahead = [line.when for line in overview(store, ("phx",), NIGHT_S, zone).ahead]
    assert ahead
    assert all(when == "now" or when < "02:34" for when in ahead), ahead
    store.close()
    assert main(["preview", "--store", url, "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "At 2026-10-26 00:33:" in page
    assert "MST (UTC-07:00)" in page
    figures = json.loads(page.partition('id="figures">')[2].partition("</script>")[0])
    ends = {figure["layout"]["xaxis"]["range"][1][:13] for figure in figures.values()}
    assert "2026-10-26T00" in ends, "charts are in local time as well"
    assert "2026-10-26T07" not in ends
