"""Generates the reference pages: commands, settings, site file."""
