"""Console entry of `powerhall-dashboards`: checks its extra, then hands over to the command line."""

from powerhall.runtime.extras import run_command


def main() -> int:
    """Run `powerhall-dashboards` and return its exit code."""
    return run_command(
        "powerhall-dashboards",
        "dashboards",
        ("influxdb_client", "grafana_foundation_sdk", "plotly", "jinja2", "h11"),
        "powerhall_dashboards.cli",
    )
