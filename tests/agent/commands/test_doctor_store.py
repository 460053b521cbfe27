"""What doctor says of a store's login: it may write, it may do more than it needs, or its file is no token."""

import json

import pytest

from powerhall_agent.commands.doctor import examine, report
from powerhall_agent.settings.agent_settings import AgentSettings, OutputSettings
from powerhall_agent.settings.sampler_settings import SamplerSettings
from rigs import answers


@pytest.fixture(autouse=True)
def _only_the_store(monkeypatch):
    for check in ("_driver", "_devices", "bmc_findings"):
        monkeypatch.setattr(f"powerhall_agent.commands.doctor.{check}", lambda *_: iter(()))


def findings(port, folder, token=b"canary-token\n"):
    (folder / "token").write_bytes(token)
    url = f"influxdb://127.0.0.1:{port}/power?org=ops&token_file={folder / 'token'}"
    found = examine(AgentSettings(sampler=SamplerSettings(node="n1"), output=(OutputSettings(url=url),)))
    text = report(found, as_json=False) + report(found, as_json=True)
    assert "canary" not in text
    return [(finding.level, finding.text, finding.todo) for finding in found if finding.subject == "store"]


@pytest.mark.parametrize(("status", "noted"), [(200, True), (401, False), (403, False), (404, False)])
def test_a_login_that_may_read_is_noted(tmp_path, status, noted):
    def answer(request):
        if request.path.startswith("/query"):
            return answers.http(status, b'{"results":[{"statement_id":0}]}')
        return answers.http(204)

    with answers.start(answer) as store:
        found = findings(store.port, tmp_path)
    assert [level for level, _, _ in found] == (["ok", "note"] if noted else ["ok"])
    assert not noted or "may also read" in found[1][1]


def test_a_token_file_of_two_lines_is_one_clear_line(tmp_path):
    with answers.start(lambda _: answers.http(204)) as store:
        found = findings(store.port, tmp_path, b"# the token\ncanary-token\n")
        assert store.requests == []
    [(level, text, _)] = found
    assert level == "bad"
    assert text == f"{tmp_path / 'token'}: has 2 lines: must be one line, the secret alone"


@pytest.mark.parametrize(
    ("status", "code", "message", "words"),
    [
        (404, "not found", 'organization name "ops" not found', "check org"),
        (404, "not found", 'bucket "power" not found', "or one that the token has no right to"),
        (401, "unauthorized", "unauthorized access", "check the token"),
        (403, "forbidden", "insufficient permissions for write", "and the rights"),
    ],
)
def test_each_refusal_of_version_2_has_its_own_advice(tmp_path, status, code, message, words):
    body = json.dumps({"code": code, "message": message}).encode()
    with answers.start(lambda _: answers.http(status, body)) as store:
        [(level, text, _)] = findings(store.port, tmp_path)
    assert level == "bad"
    assert words in text
    assert ("init-store" in text) == ("bucket" in message)
