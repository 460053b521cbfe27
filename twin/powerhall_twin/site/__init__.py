"""The simulated site: nodes, GPUs, meters, the queue and the job behaviour."""
