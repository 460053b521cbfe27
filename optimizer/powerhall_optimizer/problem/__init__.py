"""The optimisation problem as arrays, and how it is built from a snapshot."""
