"""The short form of `make load`: one store under agents and carriers, and both doors under 1,000 slow clients."""

import asyncio

import pytest

from load import load
from rigs import influxdb

SECONDS, SLOW_CLIENTS = 6.0, 1000
WITHIN_S = 5.0
"""For a health request: the machine of the tests does other work."""

pytestmark = [pytest.mark.rig, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _possible():
    if reason := influxdb.missing():
        pytest.skip(reason)
    if load.raise_files() < SLOW_CLIENTS + 500:
        pytest.skip("too few files may be open at once (ulimit -n)")


def test_a_store_takes_the_agents_points_while_carriers_ask_and_leases_are_granted(tmp_path):
    found = asyncio.run(load.agents(200, SECONDS, tmp_path))
    assert load.broken(found, WITHIN_S) == [], found
    assert found["lease_leases"] == 200, "each is asked, since none has confirmed before"
    assert found["write_requests"] > 200
    assert found["lease_poll_requests"] > 200


def test_slow_clients_keep_nobody_out_of_the_shed_service(tmp_path):
    found = asyncio.run(load.hook(SLOW_CLIENTS, SECONDS, tmp_path))
    assert load.broken(found, WITHIN_S) == [], found
    assert found["health_requests"] > 5
    assert found["event_requests"] > 0


def test_slow_clients_keep_no_scraper_out_and_make_no_threads(tmp_path):
    found = asyncio.run(load.metrics(SLOW_CLIENTS, SECONDS, tmp_path))
    assert load.broken(found, WITHIN_S) == [], found
    assert found["scrape_requests"] > 2
