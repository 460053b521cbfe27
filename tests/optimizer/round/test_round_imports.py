"""A round of a few seconds imports only what it needs: each of these libraries takes a third of a second or more."""

import subprocess
import sys

PARTS = "powerhall_optimizer.commands.round, powerhall_optimizer.planning.storage_alternation"


def test_a_round_without_storage_or_blocks_imports_no_other_solver():
    names = ("ortools", "pandas", "scipy.optimize", "scipy.sparse")
    code = f"import sys, {PARTS}; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
