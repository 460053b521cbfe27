"""The folder of signals: each file counts once, links and half-written files are left alone, done ones are put away."""

import io
import json
import os

import pytest

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.log import Log
from powerhall_optimizer.shed import inbox
from powerhall_optimizer.shed.inbox import SignalInbox

NOW_S = 1_800_000_000.0
GOOD = {"event_id": "dr-1", "duration": "1 h", "power_limit": "350 MW"}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "signals"
    made.mkdir(mode=0o750)
    return made


def watcher(folder, taken):
    return SignalInbox(folder, "phx", taken.append, Log(quiet=True))


def test_a_file_dropped_into_the_folder_is_a_signal_once(folder):
    taken = []
    watch = watcher(folder, taken)
    part = folder / "event.json.part"
    part.write_text(json.dumps(GOOD))
    watch.look(NOW_S)
    part.rename(folder / "event.json")
    assert [watch.look(NOW_S) for _ in range(3)] == [0, 1, 0]
    assert [signal.event_id for signal in taken] == ["dr-1"]
    assert [path.name[16:] for path in (folder / "done").iterdir()] == ["event.json"]


def test_a_file_that_still_grows_is_not_read(folder):
    taken = []
    watch = watcher(folder, taken)
    text = json.dumps(GOOD)
    for size in (10, 30, len(text)):
        (folder / "event.json").write_text(text[:size])
        assert watch.look(NOW_S) == 0
    assert watch.look(NOW_S) == 1


def test_a_bad_file_is_put_aside_with_the_reason_and_one_good_event_of_it_does_not_count(folder):
    taken = []
    watch = watcher(folder, taken)
    (folder / "bad.json").write_text(json.dumps([GOOD, GOOD | {"event_id": "b", "duration": "soon"}]))
    watch.look(NOW_S)
    watch.look(NOW_S)
    assert taken == []
    why = next(path for path in (folder / "refused").iterdir() if path.suffix == ".why")
    assert "duration" in why.read_text() or "number and a unit" in why.read_text()


def test_hidden_files_and_other_endings_are_left_alone_and_links_are_not_followed(folder, tmp_path):
    taken = []
    watch = watcher(folder, taken)
    (tmp_path / "secret.json").write_text(json.dumps(GOOD))
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / ".hidden.json").write_text(json.dumps(GOOD))
    (folder / "note.txt").write_text(json.dumps(GOOD))
    os.mkfifo(folder / "pipe.json")
    for _ in range(3):
        assert watch.look(NOW_S) == 0
    assert taken == []
    assert sorted(path.name for path in folder.iterdir()) == [".hidden.json", "done", "note.txt", "refused"]
    assert (tmp_path / "secret.json").read_text() == json.dumps(GOOD)


def test_a_folder_that_everybody_may_write_to_is_refused(folder):
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="not everybody"):
        watcher(folder, [])
    with pytest.raises(ConfigError, match="No such file"):
        watcher(folder / "absent", [])


PLACES = {
    "gone": lambda where: None,
    "a file": lambda where: where.write_text("x"),
    "a link": lambda where: where.symlink_to(where.parent.parent / "elsewhere"),
    "a loop": lambda where: where.symlink_to(where),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("name", ["done", "refused"])
def test_a_signal_is_put_away_as_soon_as_its_folder_is_there_again(folder, tmp_path, name, kind, monkeypatch):
    monkeypatch.setattr(inbox, "_RETRY_S", 0.0)
    (tmp_path / "elsewhere").mkdir()
    taken, out = [], io.StringIO()
    watch = SignalInbox(folder, "phx", taken.append, Log(out))
    (folder / name).rmdir()
    PLACES[kind](folder / name)
    (folder / "a.json").write_text(json.dumps(GOOD) if name == "done" else "{}")
    for _ in range(4):
        watch.look(NOW_S)
    assert len(taken) == (name == "done")
    if kind != "gone":
        assert f"signals/{name}: must be a folder" in watch.problem
        assert (folder / "a.json").exists()
        assert out.getvalue().count("signal_stays") == 1
        (folder / name).unlink()
        watch.look(NOW_S)
    assert watch.problem == ""
    assert not (folder / "a.json").exists()
    kept = [path.name[16:] for path in (folder / name).iterdir()]
    assert sorted(kept) == ["a.json"] + ["a.json.why"] * (name == "refused")
    assert not [*(tmp_path / "elsewhere").iterdir()], "links are not followed"
    assert len(taken) == (name == "done"), "and it acts once"


def test_a_link_in_the_place_of_done_is_refused_at_the_start(folder, tmp_path):
    (folder / "done").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="done: must be a folder, and no link"):
        watcher(folder, [])
