"""Console entry of `powerhall-optimizer`: checks its extra, then hands over to the command line."""

from powerhall.runtime.extras import run_command


def main() -> int:
    """Run `powerhall-optimizer` and return its exit code."""
    return run_command(
        "powerhall-optimizer", "optimizer", ("numpy", "scipy", "numba", "ortools"), "powerhall_optimizer.cli"
    )
