"""The trial of an emergency shed on the simulated site."""
