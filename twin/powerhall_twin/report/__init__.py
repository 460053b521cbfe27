"""Reports of simulated runs."""
