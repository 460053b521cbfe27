"""The file of refused lines: whatever lies in its place, the shipper goes on."""

import io
import os

import pytest

from powerhall.runtime.log import Log
from powerhall_agent.delivery.dead_letter import DeadLetters


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)])
def test_what_is_no_file_in_its_place_holds_nobody(tmp_path, kind):
    kind(tmp_path / "rejected.lines")
    out = io.StringIO()
    letters = DeadLetters(tmp_path, Log(out))
    letters.add(b"a b=1 1\n", "no such field")
    assert "quarantine_disk" in out.getvalue()
    assert letters.points == 1


def test_lines_are_appended(tmp_path):
    letters = DeadLetters(tmp_path, Log(io.StringIO()))
    for number in (1, 2):
        letters.add(b"a b=%d 1\n" % number, "why")
    assert letters.path.read_text() == "# why\na b=1 1\n# why\na b=2 1\n"
