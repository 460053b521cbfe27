"""The compiled kernels: cached by the content of all of them."""

import os
import re
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
    takes = re.compile(r"powerhall_optimizer\.jit import [^\n]*kernel")
    users = {path for path in package.rglob("*.py") if takes.search(path.read_text(encoding="utf-8"))}
    assert users
    assert users <= {path for pattern in jit.KERNEL_SOURCES for path in package.glob(pattern)}


def _folder(tmp_path, package, **env):
    """Return the cache folder and its warmth as a program sees them whose package lies in `package`."""
    program = f"""
from pathlib import Path
from powerhall_optimizer import jit
jit._cache_folder.cache_clear()
jit.__file__ = {str(package / "jit.py")!r}
state = jit.cache_state()
print(state.folder)
print(state.warm)
"""
    base = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=base | {"HOME": str(tmp_path)} | env,
        capture_output=True,
        text=True,
        check=True,
    )
    folder, warm = done.stdout.splitlines()
    return folder, warm == "True"


def test_an_installation_that_cannot_be_written_falls_back_to_the_users_cache(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__pycache__").write_text("a file where the folder would be: not even root can write below it")
    folder, warm = _folder(tmp_path, package)
    assert folder.startswith(str(tmp_path / ".cache" / "powerhall" / "kernels-"))
    assert not warm
    folder, _ = _folder(tmp_path, package, XDG_CACHE_HOME=str(tmp_path / "xdg"))
    assert folder.startswith(str(tmp_path / "xdg" / "powerhall" / "kernels-"))


def test_a_new_cache_begins_as_a_copy_of_the_installed_one(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    installed, _ = _folder(tmp_path, package)
    assert installed.startswith(str(package))
    (package / "__pycache__" / os.path.basename(installed) / "loop.nbi").write_text("compiled at installation")
    folder, _ = _folder(tmp_path, package, NUMBA_CACHE_DIR=str(tmp_path / "named"))
    assert folder.startswith(str(tmp_path / "named"))
    assert (tmp_path / "named" / os.path.basename(folder) / "loop.nbi").read_text() == "compiled at installation"
