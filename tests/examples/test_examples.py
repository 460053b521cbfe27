"""The scripts of the examples that use the Python API run, write a plan that holds, and print what README promises."""

import subprocess
import sys

from powerhall_optimizer import api


def run(root, example, out):
    script = root / "examples" / example / "plan.py"
    done = subprocess.run([sys.executable, str(script), str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan = api.read_plan(out / "plan.json")
    assert api.verify(plan) == []
    assert "Plotly.newPlot" in (out / "report.html").read_text()
    return plan, done.stdout


def test_every_example_has_its_section_and_command_in_the_readme(root):
    readme = (root / "examples" / "README.md").read_text()
    for folder in (path for path in (root / "examples").iterdir() if path.is_dir()):
        assert f"\n## {folder.name}\n" in readme
        assert f"\npython examples/{folder.name}/" in readme


def test_the_first_example_plans_every_job_and_explains_one(root, tmp_path):
    plan, said = run(root, "first", tmp_path)
    assert {entry.job_id for entry in plan.assignments} == {"prep", "train", "tune", "eval", "sweep"}
    assert {entry.mode for entry in plan.assignments} == {"p400", "p700"}, "short of power, modes differ"
    assert "sweep starts at 2026-07-01T02:00Z in hall1, mode p400.\n  32 GPUs, weight 1, 3.00 h of work, queued" in said
    assert "GW" not in said


def test_the_hot_day_compares_with_a_weaker_cooler(root, tmp_path):
    plan, said = run(root, "hot-day", tmp_path)
    assert len(plan.snapshot.jobs) == 36
    assert max(plan.snapshot.dry_bulb_c) > 37
    assert min(plan.snapshot.price_per_mwh) < max(plan.snapshot.price_per_mwh)
    assert plan.waiting, "not every job gets its turn"
    assert [line.split()[0] for line in said.splitlines()[:2]] == ["as", "hall1.cooling=-20%"]
    assert f"{plan.waiting[0].job_id} waits: " in said
    assert "GW" not in said
