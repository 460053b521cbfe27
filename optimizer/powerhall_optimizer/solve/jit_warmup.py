"""Compile the solver's kernels, once per installation: numba keeps them on disk afterwards."""

__all__ = ["compile_solver"]


def compile_solver() -> None:
    """Solve a small generated problem by every stage, with a fixed amount of work each.

    Takes some tens of seconds on a fresh installation, and a tenth of a second beyond loading the loops after that.
    """
    from powerhall_optimizer.problem.synthetic import generate
    from powerhall_optimizer.solve.pipeline import solve

    solve(generate("open", 60, 24, 0), seconds=600.0, iterations=1)
