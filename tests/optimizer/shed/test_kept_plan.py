"""The plan that events act on, whatever comes into the place of its file."""

import io
import os
import time

import msgspec
import pytest

from powerhall.plan.plan import read_plan, write_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.shed.kept_plan import KeptPlan


def _text(path, body):
    path.write_bytes(body)


def _other_site(path, plan):
    s = plan.snapshot
    site = msgspec.structs.replace(s.site, name="elsewhere")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(s, site=site))))


PLACES = {
    "nothing": lambda path, plan: None,
    "pipe": lambda path, plan: os.mkfifo(path),
    "folder": lambda path, plan: path.mkdir(),
    "loop": lambda path, plan: path.symlink_to(path),
    "device": lambda path, plan: path.symlink_to("/dev/zero"),
    "sparse": lambda path, plan: (path.touch(), os.truncate(path, 2 << 30)),
    "not UTF-8": lambda path, plan: _text(path, b"\xff"),
    "cut": lambda path, plan: _text(path, msgspec.json.encode(plan)[:-100]),
    "of another site": _other_site,
}


@pytest.mark.parametrize("kind", PLACES)
def test_the_last_good_plan_stays_and_the_file_is_read_again_when_it_is_good(plan, tmp_path, kind):
    path, out = tmp_path / "plan.json", io.StringIO()
    write_plan(plan, path)
    kept = KeptPlan(path, Log(out))
    now_s = plan.snapshot.start_s + 1.0
    path.unlink()
    PLACES[kind](path, plan)
    began_s = time.monotonic()
    for _ in range(3):
        assert kept.present(now_s).plan_id == plan.plan_id
        assert "plan.json" in kept.problem
    assert time.monotonic() - began_s < 2.0
    assert out.getvalue().count("event=shed_plan") == 1
    (path.rmdir if path.is_dir() else lambda: path.unlink(missing_ok=True))()
    newer = msgspec.structs.replace(plan, created_s=plan.created_s + 1)
    write_plan(newer, path)
    assert kept.present(now_s) == newer
    assert kept.problem == ""


def test_a_plan_of_later_waits_for_its_time_and_one_that_is_over_is_refused(plan, tmp_path):
    path = tmp_path / "plan.json"
    write_plan(plan, path)
    kept = KeptPlan(path, Log(io.StringIO()))
    s = plan.snapshot
    later = msgspec.structs.replace(s, start_s=s.start_s + s.slot_s)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, snapshot=later)))
    assert kept.present(s.start_s + 1.0).snapshot.start_s == s.start_s
    assert "does not cover the present" in kept.problem
    assert kept.present(later.start_s + 1.0).snapshot.start_s == later.start_s
    with pytest.raises(Rejected, match="does not cover the present"):
        kept.present(s.start_s + s.slots * s.slot_s + 86_400.0)
    assert read_plan(path) == kept.plan
