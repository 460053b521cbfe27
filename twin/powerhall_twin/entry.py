"""Console entry of `powerhall-twin`: checks its extra, then hands over to the command line."""

from powerhall.runtime.extras import run_command


def main() -> int:
    """Run `powerhall-twin` and return its exit code."""
    return run_command(
        "powerhall-twin", "twin", ("pynvml", "numpy", "ortools", "plotly", "jinja2"), "powerhall_twin.cli"
    )
