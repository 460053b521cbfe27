"""The compiled kernels: cached by the content of all of them."""

import os
import subprocess
import sys

from powerhall_optimizer import jit

PROGRAM = """
import sys
from pathlib import Path
from powerhall_optimizer import jit
sys.path.insert(0, sys.argv[1])
jit._cache_folder.cache_clear()
jit.__file__ = str(Path(sys.argv[1]) / "jit.py")
jit.KERNEL_SOURCES = ("*.py",)
import outer
print(outer.outer(1))
"""


def run(folder):
    env = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, folder], env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_changed_kernel_reaches_the_unchanged_ones_that_call_it(tmp_path):
    (tmp_path / "inner.py").write_text(
        "from powerhall_optimizer.jit import kernel\n@kernel\ndef inner(x): return x + 1\n"
    )
    (tmp_path / "outer.py").write_text(
        "from inner import inner\nfrom powerhall_optimizer.jit import kernel\n@kernel\ndef outer(x): return inner(x)\n"
    )
    assert run(tmp_path) == 2
    assert len(list((tmp_path / "__pycache__").glob("kernels-*/*/outer*.nbi"))) == 1, "the machine code is cached"
    (tmp_path / "inner.py").write_text(
        "from powerhall_optimizer.jit import kernel\n@kernel\ndef inner(x): return x + 5\n"
    )
    assert run(tmp_path) == 6


def test_every_module_with_kernels_counts_for_the_cache(root):
    package = root / "optimizer" / "powerhall_optimizer"
    users = {path for path in package.rglob("*.py") if "powerhall_optimizer.jit" in path.read_text(encoding="utf-8")}
    assert users
    assert users <= {path for pattern in jit.KERNEL_SOURCES for path in package.glob(pattern)}
