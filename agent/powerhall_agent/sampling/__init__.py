"""Sampling: the process that owns NVML and turns readings into records."""
