"""Rounds that are kept are found whole, replayed bit for bit, and any changed byte of any file is found and named."""

import errno
import json
import random
import shutil
from pathlib import Path

import pytest

from powerhall_optimizer.archive import shelf as shelf_module
from powerhall_optimizer.archive.audit import audit
from powerhall_optimizer.archive.entries import START, Head, digest, seal
from powerhall_optimizer.archive.keep import Archive
from powerhall_optimizer.archive.shelf import FolderShelf
from powerhall_optimizer.cli import main
from rigs.sacct_history import SITE, START_S

KEY = bytes(range(32))
JOBS = "job_id,gpus,duration\none,8,1h\ntwo,16,30min\nthree,24,2h\n"


def rounds(folder: Path, count: int, *options: str, sites: tuple[str, ...] = ("lab",), expected: int = 0) -> Path:
    """Run rounds one slot after the other, each from the plan before it, with an expected exit code."""
    (folder / "jobs.csv").write_text(JOBS)
    (folder / "site.key").write_text(KEY.hex())
    settings = folder / "round.toml"
    if not settings.exists():
        settings.write_text("work_rate = 0.005\nworkers = 1\n")
    files = []
    for name in sites:
        (folder / f"{name}.toml").write_text(SITE.replace("lab", name))
        files += ["--site", str(folder / f"{name}.toml")]
    common = [*files, "--jobs", str(folder / "jobs.csv"), "--settings", str(settings), "--horizon", "3h"]
    common += ["--site-key", str(folder / "site.key"), "--out", str(folder / "plan.json"), "--quiet", "--seconds", "20"]
    where = () if "--archive" in options else ("--archive", str(folder / "rounds"))
    for number in range(count):
        code = main(["round", *common, *where, *options, "--start", str(START_S + 300 * number)])
        assert code == expected
    return folder / "rounds"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """An archive of three rounds."""
    return rounds(tmp_path_factory.mktemp("kept"), 3)


@pytest.fixture
def copy(kept, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(kept, tmp_path / "rounds"))


def found(folder, key=KEY, *, replay=False):
    return audit(Archive(FolderShelf(folder), key), replay=replay)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_rounds_are_made_again_bit_for_bit(kept, capsys):
    assert main(["audit", str(kept), "--site-key", str(kept.parent / "site.key"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sound"], told["entries"], told["verified"], told["replayed"]) == (True, 3, 3, 3)
    assert (told["faults"], told["notes"]) == ([], [])
    assert main(["audit", str(kept), "--last", "1"]) == 0
    text = capsys.readouterr().out
    assert "3 rounds, 3 plans verified, 1 made again" in text
    assert "signatures are not checked" in text


def test_any_changed_byte_of_any_file_is_found_and_named(copy):
    draw = random.Random(1)
    for path in files_of(copy):
        whole = path.read_bytes()
        places = {0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(3))}
        for at in places:
            spoilt = bytearray(whole)
            spoilt[at] ^= draw.randrange(1, 256)
            path.write_bytes(spoilt)
            faults = found(copy).faults
            assert {fault.file for fault in faults} == {str(path.relative_to(copy))}, (at, faults)
        for changed in (b"", whole[:-1], whole + b"\n"):
            path.write_bytes(changed)
            assert {fault.file for fault in found(copy).faults} == {str(path.relative_to(copy))}
        path.write_bytes(whole)
    assert found(copy).faults == []


def test_a_file_that_is_gone_or_of_another_round_is_named(copy):
    for path in files_of(copy):
        whole = path.read_bytes()
        path.unlink()
        if path.name == "head.json":
            assert main(["audit", str(copy)]) == 1
        else:
            faults = found(copy).faults
            assert {(fault.file, fault.kind) for fault in faults} == {(str(path.relative_to(copy)), "missing")}
        path.write_bytes(whole)
    first, second = copy / "entries/000000000001.json", copy / "entries/000000000002.json"
    second.write_bytes(first.read_bytes())  # signed, and in the wrong place
    assert [fault.file for fault in found(copy).faults] == ["entries/000000000002.json"]


def test_a_chain_made_new_without_the_key_is_found(copy, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    made = rounds(other, 1)
    (other / "site.key").write_text("00" * 32)
    assert main(["audit", str(made), "--site-key", str(other / "site.key"), "--no-replay"]) == 1
    head = (copy / "head.json").read_bytes()
    (copy / "head.json").write_bytes((made / "head.json").read_bytes())
    assert found(copy).faults
    (copy / "head.json").write_bytes(head)
    assert [str(f) for f in found(copy, b"\1" * 32).faults] == [
        "head.json: tampered: the signature is not the site key's"
    ]


def test_another_plan_than_the_inputs_give_is_found(tmp_path, monkeypatch, capsys):
    # A round that wrote a sound plan which is not the one that its inputs give: as software that was changed would.
    import msgspec

    from powerhall_optimizer.round import single_site

    keep = single_site.keep_round

    def other(archive, inputs, plan, last, log):
        settings = msgspec.structs.replace(inputs.settings, objective=inputs.settings.objective, work_rate=1e-3, seed=9)
        moved = msgspec.structs.replace(plan, work={"greedy": 1})
        keep(archive, msgspec.structs.replace(inputs, settings=settings), moved, last, log)

    monkeypatch.setattr(single_site, "keep_round", other)
    made = rounds(tmp_path, 1)
    assert main(["audit", str(made), "--site-key", str(tmp_path / "site.key")]) == 1
    line, verdict = capsys.readouterr().out.splitlines()[-2:]
    assert line.startswith("objects/")
    assert "replay: its inputs give another plan" in line
    assert verdict.startswith("1 faults: 1 rounds, 1 plans verified, 0")


def test_the_archive_keeps_within_its_size_and_stays_sound(tmp_path):
    (tmp_path / "round.toml").write_text("work_rate = 0.005\nworkers = 1\narchive_mb = 0.015\n")
    made = rounds(tmp_path, 4)
    size = sum(path.stat().st_size for path in files_of(made))
    assert size <= 15_000
    told = found(made)
    assert (told.faults, told.verified) == ([], told.entries)
    assert 1 <= told.entries < 4
    assert any("dropped" in note for note in told.notes)


def test_a_full_disk_keeps_no_round_and_stops_none(tmp_path, monkeypatch, capsys):
    made = rounds(tmp_path, 1)
    before = {path: path.read_bytes() for path in files_of(made)}

    def full(path, body, *, durable=False):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(shelf_module, "replace_file", full)
    (tmp_path / "plan.json").unlink()
    rounds(tmp_path, 1, "--horizon", "4h")
    assert "event=not_archived" in capsys.readouterr().err
    assert (tmp_path / "plan.json").exists()
    assert {path: path.read_bytes() for path in files_of(made)} == before


@pytest.mark.parametrize("writes", [0, 2, 3, 4])
def test_a_round_ended_at_any_write_leaves_a_sound_archive_that_goes_on(copy, tmp_path, monkeypatch, writes):
    put, count = FolderShelf.put, 0

    def ended(self, name, raw):
        nonlocal count
        count += 1
        if count > writes:
            raise KeyboardInterrupt
        put(self, name, raw)

    work = tmp_path / "work"
    work.mkdir()
    made = Path(shutil.copytree(copy, work / "rounds"))
    monkeypatch.setattr(FolderShelf, "put", ended)
    rounds(work, 1, expected=0 if writes >= 4 else 130)
    monkeypatch.undo()
    told = found(made)
    assert told.faults == []
    assert told.entries == (4 if writes >= 4 else 3)
    rounds(work, 1, "--horizon", "4h")
    told = found(made)
    assert (told.faults, told.entries) == ([], 5 if writes >= 4 else 4)


def test_a_damaged_archive_is_not_written_over(copy, tmp_path, capsys):
    work = tmp_path / "work"
    work.mkdir()
    made = Path(shutil.copytree(copy, work / "rounds"))
    (made / "head.json").unlink()
    before = len(files_of(made / "entries"))
    rounds(work, 1)
    assert "head.json: is missing beside entries" in capsys.readouterr().err
    assert len(files_of(made / "entries")) == before


def test_an_archive_that_begins_with_an_unchanged_plan_is_one(tmp_path, capsys):
    rounds(tmp_path, 1, "--archive", str(tmp_path / "other"))
    made = rounds(tmp_path, 1)
    assert main(["audit", str(made), "--site-key", str(tmp_path / "site.key")]) == 0
    told = capsys.readouterr().out
    assert "note: no round is kept yet" in told
    assert "sound: 0 rounds" in told
    (tmp_path / "plan.json").unlink()
    rounds(tmp_path, 1)
    assert (found(made).faults, found(made).entries) == ([], 1)


def test_an_older_state_of_the_archive_is_found_by_what_was_seen(copy, tmp_path, capsys):
    options = ["audit", str(copy), "--no-replay", "--seen", str(tmp_path / "seen.json")]
    assert main(options) == 0
    entry = (copy / "entries" / f"{2:012d}.json").read_bytes()
    (copy / "head.json").write_bytes(seal(Head(1, START, 2, digest(entry)), KEY))  # as a copy of an hour ago has it
    (copy / "entries" / f"{3:012d}.json").unlink()
    assert found(copy).faults == []
    capsys.readouterr()
    assert main(options) == 1
    assert "ends with entry 2, after entry 3 was seen" in capsys.readouterr().out


def test_rounds_of_several_sites_in_a_store(tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    rounds(tmp_path, 1, "--store", url, "--archive", "store", sites=("lab", "other"))
    capsys.readouterr()
    assert main(["audit", "--store", url, "--site", "lab", "--site", "other", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["replayed"]) == (1, 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "needs the folder of an archive"),
        (("gone",), "must be a folder"),
        ((".",), "head.json: missing"),
        (("--store", "sqlite:///gone.db", "--site", "x"), "gone.db"),
        ((".", "--last", "-1"), "--last"),
    ],
)
def test_what_is_no_archive_is_refused_in_one_line(tmp_path, monkeypatch, capsys, options, told):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *options]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
