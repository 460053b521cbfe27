"""Workload managers: read their queue, write the plan into them (Slurm, Kubernetes with Kueue, files)."""
