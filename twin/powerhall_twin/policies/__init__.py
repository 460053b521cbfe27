"""Scheduling policies and the engine that runs them."""
