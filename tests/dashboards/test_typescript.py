"""The JSON against Grafana's own TypeScript types of three major versions, under `tsc --strict`.

Needs node, npm and the packages in tests/dashboards/typescript (`npm ci` there); skips with a reason where absent.
"""
