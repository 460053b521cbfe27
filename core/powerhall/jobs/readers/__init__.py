"""Readers of job files: one module per format, registered in `formats`."""
