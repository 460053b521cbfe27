"""Generates the reference pages of commands, settings and site file; dashboards generate their own files."""
