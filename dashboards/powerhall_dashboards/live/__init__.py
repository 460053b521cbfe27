"""A running Grafana: putting dashboards into it, comparing, and checking that every query of every panel answers."""
