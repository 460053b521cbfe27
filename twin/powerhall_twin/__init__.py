"""A simulated site: GPUs, power chain, cooling and queue, for demos, replays and what-if runs."""
