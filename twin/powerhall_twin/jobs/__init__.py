"""Jobs of a simulated day: generated, or a window of a trace."""
