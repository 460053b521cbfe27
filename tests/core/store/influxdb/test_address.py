"""Store URLs: their parts, refusals, and no secret in any text."""

from pathlib import Path
from urllib.parse import urlencode

import pytest

from powerhall.runtime.errors import ConfigError
from powerhall.store import open_store
from powerhall.store.influxdb.address import parse_influx_url
from powerhall.store.schema import RETENTION_DAYS


@pytest.mark.parametrize(
    ("url", "base_url", "bucket", "version"),
    [
        ("influxdb://127.0.0.1:8086/power", "http://127.0.0.1:8086", "power", 2),
        ("influxdb://localhost/power?version=1", "http://localhost:8086", "power", 1),
        ("influxdb://[::1]:9/power?version=3", "http://[::1]:9", "power", 3),
        ("influxdb://tsdb.example:8086/power/week", "https://tsdb.example:8086", "power/week", 2),
        ("influxdb://127.0.0.1/power?tls=true", "https://127.0.0.1:8086", "power", 2),
        ("influxdb://tsdb.example/a%20b?tls=false&allow_http=true", "http://tsdb.example:8086", "a b", 2),
    ],
)
def test_tls_is_the_default_except_on_this_machine(url: str, base_url: str, bucket: str, version: int) -> None:
    address = parse_influx_url(url)
    assert (address.base_url, address.bucket, address.version) == (base_url, bucket, version)


def test_a_bucket_with_a_policy_is_a_database_and_its_policy() -> None:
    assert parse_influx_url("influxdb://localhost/power/week").database == ("power", "week")
    assert parse_influx_url("influxdb://localhost/power").database == ("power", "")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("influxdb://tsdb.example/power?tls=false", "allow_http=true"),
        ("influxdb://127.0.0.1/power?version=4", "version: '4': must be one of 1, 2, 3"),
        ("influxdb://127.0.0.1/power?buckets=x", "option: 'buckets': must be one of version,"),
        ("influxdb://127.0.0.1/power?timeout_s=soon", "timeout_s: 'soon'"),
        ("influxdb://127.0.0.1:99999/power", "port"),
        ("influxdb://127.0.0.1", "HOST:PORT/BUCKET"),
        ("influxdb:///power", "HOST:PORT/BUCKET"),
        ("sqlite:///", "names no file"),
        ("sqlite:///{tmp}/absent/store.db", "folder {tmp}/absent does not exist"),
        ("no_such_store://x/y", "must be sqlite:///PATH or "),
        ("store.db", " or influxdb://HOST:PORT/BUCKET"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_allowed(url: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_store(url.format(tmp=tmp_path))
    assert named.format(tmp=tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "influxdb://user:hunter2@127.0.0.1/power",
        "influxdb://127.0.0.1/power?token=hunter2",
        "influxdb://127.0.0.1/power?password=hunter2",
    ],
)
def test_a_secret_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_store(url)
    assert "hunter2" not in str(refusal.value)
    assert "_file" in str(refusal.value)


def test_a_token_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    address = parse_influx_url(f"influxdb://127.0.0.1/power?token_file={tmp_path / 'token'}")
    assert address.token is not None
    assert address.token.read() == "hunter2"
    assert "hunter2" not in repr(address)


def test_classes_of_retention_have_places_of_their_own_beside_the_bucket() -> None:
    address = parse_influx_url("influxdb://127.0.0.1/power?retention=classes")
    places = {name: address.of_class(name).database for name in RETENTION_DAYS}
    assert places == {"fine": ("power", ""), "recent": ("power", "recent"), "history": ("power", "history")}
    one = parse_influx_url("influxdb://127.0.0.1/power")
    assert {one.of_class(name) for name in RETENTION_DAYS} == {one}
    with pytest.raises(ConfigError, match="must not name a retention policy with retention=classes"):
        parse_influx_url("influxdb://127.0.0.1/power/quarter?retention=classes")
    with pytest.raises(ConfigError, match="must be one of one, classes"):
        parse_influx_url("influxdb://127.0.0.1/power?retention=many")


@pytest.mark.parametrize("prefix", ["influx", "/influx/", "a/b.c"])
def test_a_store_may_lie_behind_a_path(prefix):
    address = parse_influx_url(f"influxdb://127.0.0.1:8086/power?prefix={prefix}")
    assert address.base_url == f"http://127.0.0.1:8086/{prefix.strip('/')}"
    assert (address.bucket, address.of_class("recent").base_url) == ("power", address.base_url)


@pytest.mark.parametrize("prefix", ["a b", "../x", "a?b", "a%2Fb", "http:"])
def test_a_path_that_is_none_is_refused(prefix):
    with pytest.raises(ConfigError, match=r"prefix: .*must be a path such as influx"):
        parse_influx_url(f"influxdb://127.0.0.1:8086/power?{urlencode({'prefix': prefix})}")
