"""The PSPLIB benchmark reads folders and archives, compares with best knowns, resumes, and refuses bad input."""

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "rcpsp.py"
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


class Ended(NamedTuple):
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The benchmark, loaded from its file: benchmarks are no package."""
    spec = importlib.util.spec_from_file_location("rcpsp_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def benchmark(program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the benchmark on the folder of the test with this table of best knowns."""

    def run(best_known: str, *options: str) -> Ended:
        table = tmp_path / "best.csv"
        table.write_text(best_known)
        where = ["--instances", str(tmp_path), "--best-known", str(table), "--json", str(tmp_path / "out.json")]
        code = program.main([*where, "--seconds", "5", *options])
        return Ended(code, *capsys.readouterr())

    return run


def two_instances(folder: Path) -> None:
    (folder / "J301_1.sm").write_text(PROJECT)
    with tarfile.open(folder / "j60.tar.xz", "w:xz") as archive:
        member = tarfile.TarInfo("j601_1.sm")
        member.size = len(PROJECT)
        archive.addfile(member, io.BytesIO(PROJECT.encode()))


def figures_of(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return figures


def test_files_and_archives_are_solved_beside_the_peer(benchmark: Run, tmp_path: Path) -> None:
    two_instances(tmp_path)
    plot = tmp_path / "gaps.svg"
    best_known = "instance,set,ub,lb\nj301_1,j30,7,7\nj601_1,j60,8,7\nj602_1,j60,9,9\n"
    ended = benchmark(best_known, "--plot", str(plot))
    assert ended.returncode == 0, ended.stderr
    assert "2/2 j601_1 peer: 7 (best known 8), proved" in ended.stderr
    figures = figures_of(tmp_path)
    for side in (figures, figures["peer"]):
        assert (side["instances"], side["proved"], side["best_known_matched"]) == (2, 2, 2)
        assert side["best_known_beaten"] == ["j601_1"]
        assert abs(side["mean_gap"] - (0 - 1 / 8) / 2) < 1e-12
    curves = [line for line in ElementTree.parse(plot).iter() if line.tag.endswith("polyline")]
    assert len(curves) == 4


def test_a_run_cut_off_resumes_with_its_finished_instances_and_refuses_other_conditions(
    benchmark: Run, tmp_path: Path
) -> None:
    two_instances(tmp_path)
    best_known = "instance,ub\nj301_1,7\nj601_1,7\n"
    first = benchmark(best_known, "--sets", "j30", "--no-peer")
    assert first.returncode == 0, first.stderr
    finished = figures_of(tmp_path)["outcomes"]
    assert [row["instance"] for row in finished] == ["j301_1"]
    none_left = benchmark(best_known, "--resume", "--no-peer", "--stop-after", "1e-9")
    assert none_left.returncode == 0
    assert "go on with --resume" in none_left.stdout
    assert benchmark(best_known, "--resume", "--no-peer").returncode == 0
    figures = figures_of(tmp_path)
    assert (figures["instances"], figures["outcomes"][0]) == (2, finished[0])
    other = benchmark(best_known, "--resume", "--seed", "2")
    assert other.returncode == 1
    assert other.stderr.strip().endswith("conditions: seed: 1: must equal this run's 2")


def test_a_killed_write_leaves_a_file_that_is_refused_in_one_line(benchmark: Run, tmp_path: Path) -> None:
    two_instances(tmp_path)
    (tmp_path / "out.json").write_text('{"instances": 1')
    ended = benchmark("instance,ub\nj301_1,7\n", "--resume")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "out.json" in ended.stderr


@pytest.mark.usefixtures("program")
def test_a_sample_takes_every_group_before_it_takes_one_twice() -> None:
    files = sys.modules["rcpsp_files"]
    drawn_evenly, group_of = files.drawn_evenly, files.group_of
    names = [f"j30{group}_{number}" for group in range(1, 49) for number in range(1, 11)]
    for most in (1, 24, 48, 100, 480, 999):
        drawn = drawn_evenly(names, most, seed=1)
        assert len(set(drawn)) == len(drawn) == min(most, 480)
        sizes = Counter(group_of(name) for name in drawn).values()
        assert max(sizes) - (min(sizes) if len(sizes) == 48 else 0) <= 1
        assert drawn == drawn_evenly(names, most, seed=1)
    assert drawn_evenly(names, 48, seed=1) != drawn_evenly(names, 48, seed=2)
    half = sorted({int(group_of(name)[3:]) for name in drawn_evenly(names, 24, seed=1)})
    assert half == list(range(1, 49, 2))


def test_a_result_that_contradicts_proved_bounds_is_an_error(benchmark: Run, tmp_path: Path) -> None:
    two_instances(tmp_path)
    ended = benchmark("instance,ub,lb\nj301_1,9,8\n", "--no-peer")
    assert ended.returncode == 1
    assert "contradicts" in ended.stderr


@pytest.mark.parametrize(
    ("best_known", "complaint"),
    [
        ("name,makespan\nj301_1,9\n", "must have instance and ub"),
        ("instance,ub,lb\nj301_1,7,7\nj602_1,x,7\n", "best.csv:3: ub, lb: 'x, 7'"),
        ("instance,ub,lb\nj301_1,7,8\n", "lb <= ub"),
        ("instance,ub\nj602_1,7\n", "holds no .sm file"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(
    benchmark: Run, tmp_path: Path, best_known: str, complaint: str
) -> None:
    two_instances(tmp_path)
    ended = benchmark(best_known)
    assert ended.returncode == 1
    assert complaint in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_damaged_archive_or_project_is_refused_before_anything_is_solved(benchmark: Run, tmp_path: Path) -> None:
    (tmp_path / "j30.tar.xz").write_bytes(b"no archive")
    ended = benchmark("instance,ub\nj301_1,7\n")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    (tmp_path / "j30.tar.xz").unlink()
    (tmp_path / "j301_1.sm").write_text(PROJECT)
    (tmp_path / "j301_2.sm").write_text(PROJECT.replace("2 1 3 2", "2 1 3 9"))
    ended = benchmark("instance,ub\nj301_1,7\nj301_2,7\n")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "demand of task 2" in ended.stderr
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("option", ["--seconds=0", "--limit=0", "--sample=x", "--workers=0", "--resume"])
def test_wrong_usage_ends_with_exit_code_2(
    program: ModuleType, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        program.main(["--instances", ".", "--best-known", "none.csv", option])
    assert end.value.code == 2
    assert option.split("=", maxsplit=1)[0] in capsys.readouterr().err


def test_the_short_form_without_instances_runs_and_reports_that_nothing_was_solved() -> None:
    command = [sys.executable, str(SCRIPT), "--quick"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "skipped" in ended.stdout
