"""Inputs of a plan: snapshot, telemetry, forecasts, margins."""
