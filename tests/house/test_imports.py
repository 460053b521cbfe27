"""Imports run one way: lint-imports holds it, and a planted violation fails."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("core", "agent", "optimizer", "twin", "dashboards")


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run lint-imports on the packages of `tree`, whatever is installed."""
    program = Path(sys.executable).with_name("lint-imports")
    path = ":".join(str(tree / part) for part in PACKAGES)
    return subprocess.run(
        [program, "--no-cache"], cwd=tree, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(root, tmp_path):
    for part in PACKAGES:
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_rules_hold(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("agent/powerhall_agent/planted.py", "import powerhall_optimizer"),
        ("optimizer/powerhall_optimizer/planted.py", "import powerhall_agent"),
        ("core/powerhall/planted.py", "import powerhall_agent"),
        ("dashboards/powerhall_dashboards/planted.py", "import powerhall_twin"),
        ("optimizer/powerhall_optimizer/round/planted.py", "import powerhall_optimizer.commands.round"),
        ("optimizer/powerhall_optimizer/round/request.py", "import powerhall_optimizer.api"),
        ("optimizer/powerhall_optimizer/commands/planted.py", "import powerhall_optimizer.api"),
        ("optimizer/powerhall_optimizer/shed/planted.py", "import powerhall_optimizer.round.publish"),
        ("optimizer/powerhall_optimizer/planning/planted.py", "import powerhall_optimizer.shed.ladder"),
        ("optimizer/powerhall_optimizer/leases/planted.py", "import powerhall_optimizer.schedulers.base"),
        ("optimizer/powerhall_optimizer/placement/planted.py", "import powerhall_optimizer.planning.assemble"),
        ("optimizer/powerhall_optimizer/solve/planted.py", "import powerhall_optimizer.storage.model"),
        ("optimizer/powerhall_optimizer/problem/planted.py", "import powerhall_optimizer.solve.pipeline"),
        ("optimizer/powerhall_optimizer/physics/planted.py", "import powerhall_optimizer.problem.arrays"),
        ("optimizer/powerhall_optimizer/problem/arrays.py", "import powerhall_optimizer.cli"),
        ("optimizer/powerhall_optimizer/problem/planted.py", "import powerhall_optimizer.verify.value"),
        ("optimizer/powerhall_optimizer/rcpsp/instance.py", "import powerhall_optimizer.round.request"),
        ("optimizer/powerhall_optimizer/planted.py", "import powerhall_optimizer.round.request"),
        ("optimizer/powerhall_optimizer/verify/planted.py", "import powerhall_optimizer.problem.arrays"),
        ("optimizer/powerhall_optimizer/verify/loads.py", "import powerhall_optimizer.jit"),
        ("optimizer/powerhall_optimizer/verify/loads.py", "import scipy"),
        ("agent/powerhall_agent/sampling/sampler.py", "import numpy"),
        ("agent/powerhall_agent/daemon/planted.py", "import powerhall.report.html_page"),
        ("agent/powerhall_agent/commands/planted.py", "import powerhall_agent.cli"),
        ("agent/powerhall_agent/daemon/planted.py", "import powerhall_agent.commands.once"),
        ("agent/powerhall_agent/delivery/planted.py", "import powerhall_agent.sampling.sampler"),
        ("agent/powerhall_agent/sampling/planted.py", "import powerhall_agent.daemon.daemon"),
        ("agent/powerhall_agent/collectors/planted.py", "import powerhall_agent.sampling.energy"),
        ("agent/powerhall_agent/nvml/planted.py", "import powerhall_agent.simulate.install"),
        ("agent/powerhall_agent/base/planted.py", "import powerhall_agent.settings.agent_settings"),
        ("core/powerhall/site/planted.py", "import powerhall.plan.plan"),
        ("core/powerhall/physics/planted.py", "import powerhall.site.topology"),
        ("core/powerhall/store/questions.py", "import powerhall.site.topology"),
        ("core/powerhall/store/sql.py", "import powerhall.store.sqlite"),
        ("core/powerhall/store/sqlite.py", "import powerhall.store.open"),
        ("core/powerhall/store/influxdb/store.py", "import powerhall.store.sqlite"),
        ("core/powerhall/store/influxdb/address.py", "import powerhall.store.influxdb.writer"),
        ("core/powerhall/runtime/errors.py", "import powerhall.runtime.command_line"),
        ("core/powerhall/runtime/log.py", "import powerhall.store"),
        ("core/powerhall/runtime/planted.py", "import powerhall.runtime.errors"),
        ("agent/powerhall_agent/facility/protocols/planted.py", "import powerhall_agent.facility.registry"),
        ("twin/powerhall_twin/report/planted.py", "import powerhall_twin.commands.demo"),
        ("twin/powerhall_twin/demo/planted.py", "import powerhall_twin.report.page"),
        ("twin/powerhall_twin/shed/planted.py", "import powerhall_twin.demo.demo"),
        ("twin/powerhall_twin/replay/planted.py", "import powerhall_twin.demo.demo"),
        ("twin/powerhall_twin/policies/planted.py", "import powerhall_twin.replay.replay"),
        ("twin/powerhall_twin/site/planted.py", "import powerhall_twin.engine.simulate"),
        ("twin/powerhall_twin/engine/planted.py", "import powerhall_twin.policies.registry"),
        ("twin/powerhall_twin/jobs/planted.py", "import powerhall_twin.site.scenario"),
        ("dashboards/powerhall_dashboards/commands/planted.py", "import powerhall_dashboards.cli"),
        ("dashboards/powerhall_dashboards/live/planted.py", "import powerhall_dashboards.build"),
        ("dashboards/powerhall_dashboards/preview/planted.py", "import powerhall_dashboards.live.client"),
        ("dashboards/powerhall_dashboards/grafana/planted.py", "import powerhall_dashboards.preview.charts"),
        ("dashboards/powerhall_dashboards/boards/planted.py", "import powerhall_dashboards.grafana.query"),
        ("dashboards/powerhall_dashboards/palette.py", "import powerhall_dashboards.boards"),
        ("dashboards/powerhall_dashboards/model.py", "import powerhall_dashboards.palette"),
    ],
)
def test_a_planted_import_against_the_direction_fails(copy, module, line):
    path = copy / module
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1
    assert ".".join(Path(module).with_suffix("").parts[1:]) in done.stdout


@pytest.mark.parametrize(
    "package",
    [
        "core/powerhall/physics",
        "optimizer/powerhall_optimizer/leases",
        "agent/powerhall_agent/nvml",
        "twin/powerhall_twin/policies",
        "dashboards/powerhall_dashboards/grafana",
    ],
)
def test_a_planted_circle_between_modules_fails(copy, package):
    folder, name = copy / package, package.partition("/")[2].replace("/", ".")
    (folder / "planted.py").write_text(f"import {name}.planted_too\n")
    (folder / "planted_too.py").write_text(f"import {name}.planted\n")
    done = lint(copy)
    assert done.returncode == 1
    assert "circle" in done.stdout


def test_the_checker_imports_nothing_by_a_name_at_run_time(root):
    """Such an import would be seen neither by lint-imports nor by a test that runs a copy of the folder alone."""
    modules = list((root / "optimizer/powerhall_optimizer/verify").rglob("*.py"))
    assert modules
    for module in modules:
        names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(ast.parse(module.read_text()))}
        assert not names & {"importlib", "import_module", "__import__", "exec", "eval"}, module
