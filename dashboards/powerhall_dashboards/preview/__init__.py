"""The dashboards without Grafana: the same panels and queries, drawn by Plotly into one file that needs no network."""
