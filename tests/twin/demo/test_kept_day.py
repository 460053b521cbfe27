"""The demo asks first whether its store keeps its day."""

import pytest

from powerhall.runtime.errors import ConfigError
from powerhall.store import open_store
from powerhall_dashboards.init_store import init_store
from powerhall_twin.demo import kept_day
from powerhall_twin.demo.kept_day import check_kept_day

START_S = 1_750_000_000.0


@pytest.mark.rig
@pytest.mark.parametrize("server", ["influx", "influx_1_8"])
def test_a_store_that_refuses_the_day_is_named_with_what_to_do(request, server):
    rig = request.getfixturevalue(server)
    name = rig.database("kept_day")
    url = rig.url(name, "version=1")
    store = open_store(url)
    init_store(url, 90, dry_run=False)
    with pytest.raises(
        ConfigError, match=r"does not keep points of the demo's day, 2025-06-15: .*--retention-days 3650"
    ):
        check_kept_day(store, url, "demo", START_S)
    init_store(url, 3650, dry_run=False)
    check_kept_day(store, url, "demo", START_S)
    store.close()


def test_a_store_that_drops_the_day_in_silence_is_named_too(monkeypatch, tmp_path):
    monkeypatch.setattr(kept_day, "_VISIBLE_S", 0.3)

    class Silent:
        def write(self, lines):
            pass

        def query(self, *_):
            return []

    with pytest.raises(ConfigError, match="not there after it was written"):
        check_kept_day(Silent(), "influxdb://h/b?token_file=x", "demo", START_S)
    store = open_store(f"sqlite:///{tmp_path}/t.db")
    check_kept_day(store, "sqlite", "demo", START_S)
    store.close()
