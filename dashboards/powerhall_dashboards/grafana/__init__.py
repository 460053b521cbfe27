"""Grafana: dashboards and alert rules as Grafana reads them."""
