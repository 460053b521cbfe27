"""Simulated GPUs: a state file with physics, read by a stand-in for the NVML library."""
