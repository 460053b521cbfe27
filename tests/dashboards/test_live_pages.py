"""`powerhall-dashboards serve`: what it answers, to whom, and what it says when it does not know."""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from powerhall.runtime.errors import Retryable
from powerhall.runtime.log import Log
from powerhall.runtime.settings import Secret
from powerhall.serving.http_server import Limits
from powerhall.serving.rate_limit import RateLimit
from powerhall.store import existing_store, open_store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main
from powerhall_dashboards.served.live_pages import LivePages
from powerhall_dashboards.served.page_server import PageServer
from rigs.site_data import SiteData

END_S = 1_790_000_100
TOKEN = "k" * 40


class Served:
    """The pages of a store, served by a thread; `get` asks for one."""

    def __init__(self, pages: LivePages, token: Secret | None = None, **more: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.server = PageServer(listener, pages, token, Log(quiet=True), **more)
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self.server.run())
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = f"sqlite:///{tmp_path_factory.mktemp('served') / 'site.db'}"
    store = open_store(made)
    store.write(SiteData(end_s=END_S, hours=0.5).lines())
    store.close()
    return made


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[Served]:
    running = Served(LivePages(lambda: existing_store(url), 10.0, clock=lambda: END_S + 5.0))
    yield running
    running.close()


def test_the_first_screen_answers_the_three_questions(served: Served) -> None:
    status, text = served.get("/")
    assert status == 200
    for words in ("Is it safe now?", "The next two hours", "What to do", "phx at the meter", "wait:"):
        assert words in text, words
    assert served.get("/now")[1] in text, "the part that changes is the same"
    data = json.loads(served.get("/overview.json")[1])
    assert data["limits"][0]["name"] in text
    assert data["verdict"] in text


@pytest.mark.parametrize("uid", [board.uid for board in BOARDS])
def test_every_dashboard_has_a_page_with_its_panels(served: Served, uid: str) -> None:
    status, text = served.get(f"/d/{uid}?site=phx")
    assert status == 200
    (board,) = (board for board in BOARDS if board.uid == uid)
    assert [panel.title for panel in board.panels if f"<h4>{panel.title}</h4>".replace("'", "&#39;") not in text] == []


def test_a_choice_is_that_of_the_page(served: Served) -> None:
    assert "hall h2" in served.get("/d/powerhall-hall?site=phx&hall=h2")[1]
    assert served.get("/d/powerhall-hall?hal=h2") == (400, served.get("/d/powerhall-hall?hal=h2")[1])
    assert "must be one of" in served.get("/d/powerhall-hall?hal=h2")[1]
    evil = served.get("/d/powerhall-hall?hall=%3Cscript%3Ealert(1)%3C/script%3E")[1]
    assert "<script>alert" not in evil


@pytest.mark.parametrize("path", ["/x", "/d/powerhall-nothing", "/d/", "/../etc/passwd", "/d/%2e%2e/x"])
def test_nothing_else_is_there(served: Served, path: str) -> None:
    assert served.get(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(served: Served, method: str) -> None:
    assert served.get("/", method=method)[0] == 405


def test_without_a_token_only_names_of_this_machine_are_answered(served: Served) -> None:
    """A web page elsewhere that lets its own name mean 127.0.0.1 must not read along."""
    for host, status in (("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:8480", 200)):
        assert served.get("/now", {"Host": host})[0] == status, host
    for host in ("pages.example", "127.0.0.1.pages.example", "10.0.0.1", ""):
        assert served.get("/now", {"Host": host})[0] == 403, host


def test_a_token_is_asked_for_and_read_anew(url: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    never = RateLimit(0.001, 8.0)
    running = Served(LivePages(lambda: existing_store(url), 10.0), Secret(file), wrong=never)
    try:
        basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
        assert running.get("/health")[0] == 200
        for header in ("", "Bearer wrong", f"Token {TOKEN}", "Basic !!!", f"Basic {base64.b64encode(b'x').decode()}"):
            assert running.get("/now", {"Authorization": header} if header else {})[0] == 401, header
        for header in (f"Bearer {TOKEN}", f"Basic {basic}"):
            assert running.get("/now", {"Authorization": header, "Host": "pages.example"})[0] == 200
        file.write_text("n" * 40)
        assert running.get("/now", {"Authorization": f"Bearer {TOKEN}"})[0] == 401
        assert running.get("/now", {"Authorization": f"Bearer {'n' * 40}"})[0] == 200
        wrong = [running.get("/now", {"Authorization": "Bearer x"})[0] for _ in range(4)]
        assert wrong[-1] == 429
        assert running.get("/now", {"Authorization": f"Bearer {'n' * 40}"})[0] == 200, "the right one is not held up"
    finally:
        running.close()


def test_an_old_store_is_unknown_and_the_newest_point_is_shown_only_where_asked(url: str) -> None:
    old = LivePages(lambda: existing_store(url), 10.0, clock=lambda: END_S + 3600.0)
    assert "UNKNOWN: no roll-up of the last two minutes" in old.now({"site": ("phx",)}).html
    old.close()
    newest = LivePages(lambda: existing_store(url), 10.0, shows_newest=True)
    assert "tightest is" in newest.now({}).html
    newest.close()


def test_a_store_that_goes_away_is_said_and_comes_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("powerhall_dashboards.served.live_pages._KEPT_S", 0.0)
    away = True

    def opened() -> Any:
        if away:
            raise Retryable("influxdb://tsdb: no answer")
        return existing_store(url)

    running = Served(LivePages(opened, 10.0, clock=lambda: END_S + 5.0))
    try:
        for path in ("/now", "/", "/d/powerhall-hall", "/overview.json"):
            status, text = running.get(path)
            assert (status, "no answer" in text) == (503, True), path
        away = False
        assert running.get("/now")[0] == 200
    finally:
        running.close()


def test_many_who_look_at_once_ask_the_store_once(url: str) -> None:
    opened = []

    def slow() -> Any:
        opened.append(time.monotonic())
        time.sleep(0.2)
        return existing_store(url)

    pages = LivePages(slow, 10.0, clock=lambda: END_S + 5.0)
    running = Served(pages, limits=Limits(connections=64, per_peer=32, answer_s=60.0))
    try:
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(running.get("/now")[0])) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert set(answers) <= {200, 503}, "those beyond what may wait come again"
        assert answers.count(200) >= 16
        assert len(opened) == 1
    finally:
        running.close()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--listen", "0.0.0.0:0"], "beyond loopback needs --tls-cert and --tls-key, or --allow-http"),
        (["--listen", "0.0.0.0:0", "--allow-http"], "beyond loopback needs --token-file"),
        (["--listen", "pages:8480"], "must be IP:PORT, such as 127.0.0.1:8480"),
        (["--refresh", "0.1"], "must be from 1 s to 1 h"),
        (["--token-file", "/nowhere/token"], "/nowhere/token: cannot read the secret"),
        (["--tls-cert", "/nowhere/cert"], "/nowhere/cert"),
    ],
)
def test_an_open_door_is_refused_in_one_line(
    url: str, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--store", url, *options]) == 1
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_short_token_and_a_store_that_is_not_there_are_refused(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("short")
    assert main(["serve", "--store", url, "--token-file", str(tmp_path / "token")]) == 1
    assert "at least 32 characters" in capsys.readouterr().err
    assert main(["serve", "--store", f"sqlite:///{tmp_path}/typo.db"]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "typo.db").exists()


def test_the_command_says_where_it_serves_and_ends_by_sigterm(url: str) -> None:
    program = Path(sys.executable).with_name("powerhall-dashboards")
    command = [program, "serve", "--store", url, "--listen", "127.0.0.1:0", "--newest"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            address = running.stdout.readline().strip()  # type: ignore[union-attr]
            with urllib.request.urlopen(f"{address}now", timeout=20) as answer:
                assert answer.status == 200
            os.kill(running.pid, signal.SIGTERM)
            assert running.wait(10) == 0
            assert running.stderr.read() == ""  # type: ignore[union-attr]
        finally:
            running.kill()
