"""Dashboards as code, their publication to Grafana and a preview without it."""
