"""The PSPLIB benchmark reads folders and archives, compares with best knowns, resumes, and refuses bad input."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rcpsp.py"
PROJECT = """\
jobs (incl. supersource/sink ):  4
  - renewable                 :  1   R
PRECEDENCE RELATIONS:
1 1 2 2 3
2 1 1 4
3 1 1 4
4 1 0
****
REQUESTS/DURATIONS:
1 1 0 0
2 1 3 2
3 1 4 2
4 1 0 0
****
RESOURCEAVAILABILITIES:
3
****
"""


def benchmark(folder: Path, best_known: str, *options: str) -> subprocess.CompletedProcess[str]:
    table = folder / "best.csv"
    table.write_text(best_known)
    command = [sys.executable, str(SCRIPT), "--instances", str(folder), "--best-known", str(table)]
    return subprocess.run(
        [*command, "--seconds", "5", "--json", str(folder / "out.json"), *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def two_instances(folder: Path) -> None:
    (folder / "J301_1.sm").write_text(PROJECT)
    with tarfile.open(folder / "j60.tar.xz", "w:xz") as archive:
        member = tarfile.TarInfo("j601_1.sm")
        member.size = len(PROJECT)
        archive.addfile(member, io.BytesIO(PROJECT.encode()))


def test_files_and_archives_are_solved_beside_the_peer_and_a_second_run_resumes(tmp_path: Path) -> None:
    two_instances(tmp_path)
    best_known = "instance,set,ub,lb\nj301_1,j30,7,7\nj601_1,j60,8,7\nj602_1,j60,9,9\n"
    state = tmp_path / "state.jsonl"
    first = benchmark(tmp_path, best_known, "--state", str(state))
    assert first.returncode == 0, first.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    for side in (figures, figures["peer"]):
        assert (side["instances"], side["proved"], side["best_known_matched"]) == (2, 2, 2)
        assert side["best_known_beaten"] == ["j601_1"]
        assert abs(side["mean_gap"] - (0 - 1 / 8) / 2) < 1e-12
    finished = state.read_text()
    assert benchmark(tmp_path, best_known, "--state", str(state)).returncode == 0
    assert state.read_text() == finished
    other = benchmark(tmp_path, best_known, "--state", str(state), "--seed", "2")
    assert other.returncode == 1
    assert "conditions" in other.stderr


def test_a_result_that_contradicts_proved_bounds_is_an_error(tmp_path: Path) -> None:
    two_instances(tmp_path)
    ended = benchmark(tmp_path, "instance,ub,lb\nj301_1,9,8\n", "--no-peer")
    assert ended.returncode == 1
    assert "contradicts" in ended.stderr


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    two_instances(tmp_path)
    ended = benchmark(tmp_path, "name,makespan\nj301_1,9\n")
    assert ended.returncode == 1
    assert "must have instance and ub" in ended.stderr
