"""What versions 2 and 3 do otherwise than 1, on servers that answer as they do (seen on 2.9.1 and 3.6.0)."""

from urllib.parse import parse_qsl

import pytest

from powerhall.runtime.errors import ConfigError
from powerhall.store import Query, Select, open_store
from rigs import answers

COUNT = Query("plan", (Select("value", "count", "n"),))
EMPTY = b'{"results":[{"statement_id":0}]}'


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        (2, [("power", "history"), ("power", "recent")]),
        (3, [("power/history", ""), ("power/recent", "")]),  # version 3 ignores rp, and would read another database
    ],
)
def test_a_class_is_read_by_the_name_that_the_version_knows(version, asked):
    with answers.start(lambda _: answers.http(200, EMPTY)) as server:
        store = open_store(f"influxdb://127.0.0.1:{server.port}/power?version={version}&retention=classes")
        store.query(COUNT, 0, 1)
        assert store.latest_document("plan", "s") is None
        store.close()
    forms = [dict(parse_qsl(request.lines.decode())) for request in server.requests]
    assert [(form["db"], form.get("rp", "")) for form in forms] == asked


@pytest.mark.parametrize(
    ("status", "body", "words", "not_words"),
    [
        (404, b'{"code":"not found","message":"bucket \\"power\\" not found"}', "no right to", "check org"),
        (404, b'{"code":"not found","message":"organization name \\"acme\\" not found"}', "check org", "init-store"),
        (401, b'{"code":"unauthorized","message":"unauthorized access"}', "check the token", "init-store"),
        (403, b'{"code":"forbidden","message":"insufficient permissions for write"}', "the rights", "init-store"),
        (200, b'{"results":[{"statement_id":0,"error":"database not found: power"}]}', "no right to", "check org"),
    ],
)
def test_the_advice_is_about_what_the_server_said(status, body, words, not_words):
    with answers.start(lambda _: answers.http(status, body, "Content-Type: application/json\r\n")) as server:
        store = open_store(f"influxdb://127.0.0.1:{server.port}/power?org=acme")
        with pytest.raises(ConfigError) as refusal:
            store.query(COUNT, 0, 1)
        store.close()
    assert words in str(refusal.value)
    assert not_words not in str(refusal.value)
