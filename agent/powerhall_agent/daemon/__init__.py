"""The daemon: starts the sampler, ships its records, serves metrics."""
