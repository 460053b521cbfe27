"""What doctor says of a login for each role, on stubs that answer as InfluxDB 1, 2 and 3 do."""

import json
import re

import pytest

from powerhall_agent.cli import main
from powerhall_agent.commands.doctor_rights import ROLES, role_findings
from rigs import answers

FORBIDDEN = (401, {"code": "unauthorized", "message": "unauthorized access"})
NOT_FOUND = (404, {"code": "not found", "message": 'bucket "power" not found'})


def version_2(rights):
    """Answer as 2.9 does to a token with these rights: hidden things are not found, what is not allowed is 401."""

    def answer(request):
        path, is_list = request.path, not request.lines
        if path.startswith("/api/v2/write"):
            status, body = (204, None) if "write" in rights else FORBIDDEN
        elif path.startswith("/query"):
            status, body = (200, {"results": [{"statement_id": 0}]}) if "read" in rights else NOT_FOUND
        elif path.startswith("/api/v2/orgs"):
            status, body = (200, {"orgs": [{"id": "0a"}] if "orgs" in rights else []})
        elif path.startswith("/api/v2/buckets") and is_list:
            status, body = (200, {"buckets": [{"id": "b", "name": "other"}] if "buckets" in rights else []})
        else:
            asked = json.loads(request.lines)
            taken = (422, {"code": "conflict", "message": f"bucket with name {asked['name']} already exists"})
            assert asked["name"] == "other", "a bucket that is not there would be made"
            status, body = taken if "make" in rights else FORBIDDEN
        header = "X-Influxdb-Version: 2.9.1\r\nContent-Type: application/json\r\n"
        return answers.http(status, b"" if body is None else json.dumps(body).encode(), header)

    return answer


def findings(answer, role, folder, options="org=ops"):
    (folder / "token").write_text("canary-token\n")
    with answers.start(answer) as store:
        url = f"influxdb://127.0.0.1:{store.port}/power?{options}&token_file={folder}/token"
        found = [(level, re.sub(r".*?/power: ", "", text, count=1)) for level, text, _ in role_findings(role, url)]
        assert all("canary" not in text for _, text in found)
        return found, store.requests


EVERYTHING = {"write", "read", "orgs", "buckets", "make"}
LEAST = {
    "agent": {"write"},
    "grafana": {"read"},
    "optimizer": {"write", "read"},
    "carrier": {"write", "read"},
    "init-store": {"orgs", "buckets", "make"},
}


@pytest.mark.parametrize("role", ROLES)
def test_the_least_rights_of_a_role_are_right(tmp_path, role):
    found, requests = findings(version_2(LEAST[role]), role, tmp_path)
    assert {level for level, _ in found} == {"ok"}
    assert all(request.lines in (b"", b"\n") for request in requests if request.path.startswith("/api/v2/write"))


@pytest.mark.parametrize(("role", "missing"), [(role, right) for role in ROLES for right in sorted(LEAST[role])])
def test_each_missing_right_is_named(tmp_path, role, missing):
    found, _ = findings(version_2(LEAST[role] - {missing}), role, tmp_path)
    (text,) = (text for level, text in found if level == "bad")
    named = {"write": "may not write points", "read": "may not read points", "orgs": "read:orgs"}
    named |= {"buckets": "read:buckets", "make": "write:buckets"}
    assert named[missing] in text


@pytest.mark.parametrize(("role", "more"), [("agent", "read points"), ("grafana", "write points")])
def test_a_right_that_the_role_does_not_need_is_noted(tmp_path, role, more):
    found, _ = findings(version_2(EVERYTHING), role, tmp_path)
    assert [text for level, text in found if level == "note"] == [f"may also {more}, which {role} does not need"]
    assert not [text for level, text in found if level == "bad"]


def test_version_3_has_administrators_alone(tmp_path):
    def answer(request):
        if request.path.startswith("/api/v3"):
            return answers.http(200, b'[{"iox::database": "power"}]')
        return answers.http(204) if "write" in request.path else answers.http(200, b'{"results":[{}]}')

    for role in ROLES:
        found, _ = findings(answer, role, tmp_path, "version=3")
        assert [level for level, _ in found if level != "ok"] == ["note"]
        assert "administrators alone" in found[0][1]


@pytest.mark.parametrize(("status", "level"), [(200, "ok"), (403, "bad")])
def test_version_1_asks_what_administrators_alone_may(tmp_path, status, level):
    def answer(request):
        if request.path.startswith("/query") and b"SHOW+USERS" in request.lines:
            return answers.http(status, b'{"error":"error authorizing query: requires admin privilege"}')
        return answers.http(200, b'{"results":[{}]}')

    (tmp_path / "password").write_text("canary\n")
    found, _ = findings(answer, "init-store", tmp_path, f"version=1&user=u&password_file={tmp_path}/password")
    assert [found_level for found_level, text in found if "make buckets" in text] == [level]


def test_classes_are_asked_place_by_place(tmp_path):
    found, _ = findings(version_2({"write"}), "agent", tmp_path, "org=ops&retention=classes")
    assert len(found) == 3


def test_the_command_ends_with_1_where_a_right_is_missing(tmp_path, capsys):
    (tmp_path / "token").write_text("t\n")
    with answers.start(version_2({"read"})) as store:
        url = f"influxdb://127.0.0.1:{store.port}/power?org=ops&token_file={tmp_path}/token"
        assert main(["doctor", "--role", "grafana", "--store", url]) == 0
        assert main(["doctor", "--role", "agent", "--store", url, "--json"]) == 1
    assert "may not write points" in capsys.readouterr().out
    assert main(["doctor", "--role", "agent"]) == 1
    assert "needs a store" in capsys.readouterr().err
