"""Once the solver is compiled, no stage of a round compiles anything: neither on true curves nor without."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, random
from numba.core.dispatcher import Dispatcher
import powerhall_optimizer.solve.kernels as kernels
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import prepare_site
from powerhall_optimizer.problem.synthetic import generate
from powerhall_optimizer.solve.jit_warmup import compile_solver
from powerhall_optimizer.solve.pipeline import solve
from rigs.exact_site import small_site

def compiled():
    modules = [importlib.import_module(f"{kernels.__name__}.{m.name}") for m in pkgutil.iter_modules(kernels.__path__)]
    found = [(m.__name__, n, f) for m in modules for n, f in vars(m).items() if isinstance(f, Dispatcher)]
    return {(module, name): len(f.signatures) for module, name, f in found}

compile_solver()
before = compiled()
site = prepare_site(small_site(random.Random(1)), RoundSettings(), Log(quiet=True)).built.problem
assert len(site.curves.meter_row)
for problem in (site, generate("open", 30, 24, 3)):
    solve(problem, seconds=60.0, work_s=0.3)
print([key for key, number in compiled().items() if number != before[key]])
"""


def test_a_round_compiles_nothing_once_the_solver_is_compiled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False, cwd="tests"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
