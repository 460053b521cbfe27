"""Console entry of `powerhall-agent`: checks its extra, then hands over to the command line."""

from powerhall.runtime.extras import run_command


def main() -> int:
    """Run `powerhall-agent` and return its exit code."""
    return run_command("powerhall-agent", "agent", ("pynvml", "influxdb_client"), "powerhall_agent.cli")
