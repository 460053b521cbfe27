"""Hindsight: what a scheduler did, against what was possible under the same budgets."""
