"""Bad signal files go to a folder of their own with the reason and keep no good one waiting."""

import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from powerhall.runtime.log import Log
from powerhall_optimizer.shed import inbox
from powerhall_optimizer.shed.inbox import SignalInbox
from rigs.shed_door import EVENT, refused


def test_every_bad_file_goes_to_refused_with_the_reason_and_a_good_one_beside_them_counts(tmp_path):
    folder = tmp_path / "signals"
    folder.mkdir(mode=0o750)
    good = json.dumps(EVENT)
    long_name = "n" * 250 + ".json"
    (folder / long_name).write_text("{}")
    (folder / ("ä" * 120 + ".json")).write_text("{}")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.json")).write_text("nothing\n")
    (folder / "line\nbreak.json").write_text("{}")
    (folder / "bytes.json").write_bytes(b'{"event_id": "\xff\xfe"}')
    (folder / "huge.json").write_bytes(b" " * 70_000)
    (folder / "nested.json").write_bytes(b"[" * 60_000 + b"]" * 60_000)
    (folder / "half.json").write_text(good[:30])
    (folder / "half.csv").write_text("event_id,duration,power_limit\nx,1 h,35")
    (folder / "empty.json").write_text("")
    (tmp_path / "secret.json").write_text(good)
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "dangling.json").symlink_to(tmp_path / "absent")
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "folder.json" / "inside").write_text("x")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket.json"))
    (folder / "good.json").write_text(json.dumps(EVENT | {"event_id": "good"}))
    taken = []
    watch = SignalInbox(folder, "phx", taken.append, Log(quiet=True))
    old_s = time.time() - 60
    for name in ("half.json", "half.csv", "empty.json"):
        os.utime(folder / name, (old_s, old_s))
    for _ in range(3):
        watch.look(time.time())
    assert [one.event_id for one in taken] == ["good"]
    assert sorted(path.name for path in folder.iterdir()) == ["done", "refused"]
    reasons = refused(folder)
    assert len(reasons) == 15, sorted(reasons)
    assert all(reasons.values())
    assert long_name in next(text for name, text in reasons.items() if name.startswith("nnn"))
    for name in ("link.json", "dangling.json", "pipe.json", "folder.json", "socket.json"):
        assert "regular file" in reasons[name]
    assert (tmp_path / "secret.json").read_text() == good


def looks_until_taken(folder, watch, taken, before_each=lambda: None):
    """Return the number of looks after which the good signal was taken."""
    for looks in range(1, 1000):
        before_each()
        watch.look(time.time())
        if taken:
            return looks
    raise AssertionError("not taken")


@pytest.mark.parametrize("is_last", [True, False])
def test_a_heap_of_bad_files_delays_no_good_one(tmp_path, is_last):
    """Whichever came first; names do not count."""
    folder = tmp_path / "signals"
    folder.mkdir(mode=0o750)
    names = [f"{number:04}.json" for number in range(2000)]
    (folder / "good.json").write_text(json.dumps(EVENT))
    for name in names:
        (folder / name).write_bytes(b'{"a":' * 100)
    if is_last:
        (folder / "good.json").write_text(json.dumps(EVENT))
    taken = []
    watch = SignalInbox(folder, "phx", taken.append, Log(io.StringIO()))
    assert looks_until_taken(folder, watch, taken) <= 2
    assert [one.event_id for one in taken] == ["dr-1"]


@pytest.mark.parametrize("more", [0, 3])
def test_neither_a_heap_nor_a_flood_of_bad_files_keeps_a_good_one_waiting(tmp_path, monkeypatch, more):
    """One file a look, three new ones at every look: with 20 before it, it comes at the 21st turn of the oldest."""
    monkeypatch.setattr(inbox, "_BUSY_S", 0.0)
    folder = tmp_path / "signals"
    folder.mkdir(mode=0o750)
    for number in range(20):
        (folder / f"{number:04}.json").write_text("{}")
    (folder / "good.json").write_text(json.dumps(EVENT))
    (folder / "next.json").write_text("{}")
    taken, numbers = [], itertools.count(1000)
    watch = SignalInbox(folder, "phx", taken.append, Log(io.StringIO()))

    def flood():
        for _ in range(more):
            (folder / f"{next(numbers):04}.json").write_text("{}")

    assert looks_until_taken(folder, watch, taken, flood) <= (44 if more else 4)


def test_a_file_whose_writer_pauses_is_waited_for(tmp_path):
    folder = tmp_path / "signals"
    folder.mkdir(mode=0o750)
    taken = []
    watch = SignalInbox(folder, "phx", taken.append, Log(quiet=True))
    rows = "event_id,duration,reduce_percent\ndr-1,1 h,30\n"
    with (folder / "a.json").open("w") as one, (folder / "b.csv").open("w") as two:
        one.write(json.dumps(EVENT)[:40])
        two.write(rows[:-2])  # "3" for "30"
        one.flush()
        two.flush()
        for _ in range(4):
            assert watch.look(time.time()) == 0
        one.write(json.dumps(EVENT)[40:])
        two.write(rows[-2:])
    assert [watch.look(time.time()) for _ in range(2)] == [0, 2]
    assert {one.share for one in taken} == {0.0, 0.3}


def test_a_file_that_cannot_be_moved_away_is_read_once(tmp_path, monkeypatch):
    folder = tmp_path / "signals"
    folder.mkdir(mode=0o750)
    taken = []
    watch = SignalInbox(folder, "phx", taken.append, Log(quiet=True))
    (folder / "a.json").write_text(json.dumps(EVENT))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    for _ in range(5):
        watch.look(time.time())
    assert len(taken) == 1


LOOK_AS_NOBODY = """
import os, sys, time
from pathlib import Path
from powerhall.runtime.log import Log
from powerhall_optimizer.shed.inbox import SignalInbox
watch = SignalInbox(Path(sys.argv[1]), "phx", lambda _: None, Log(quiet=True))
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
watch.look(time.time())
watch.look(time.time())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_file_without_permission_is_refused():
    """In a process of its own, of a user who may not read the file but owns the folder."""
    with tempfile.TemporaryDirectory() as name:  # pytest's folders can be entered by root alone
        Path(name).chmod(0o755)
        folder = Path(name) / "signals"
        folder.mkdir(mode=0o750)
        (folder / "a.json").write_text(json.dumps(EVENT))
        (folder / "a.json").chmod(0)
        for made in (folder, folder / "done", folder / "refused"):
            made.mkdir(exist_ok=True)
            os.chown(made, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", LOOK_AS_NOBODY, folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Permission denied" in refused(folder)["a.json"]
