"""Batteries, chilled-water tanks and thermal inertia in the plan: model, linear program, alternation with prices."""
