"""The engine of the twin: a site and its jobs as arrays, kernels over them, and the loop over their events."""
