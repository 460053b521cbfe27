"""The trial of an emergency shed."""
