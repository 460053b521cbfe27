"""Outputs: the stores that the shipper writes to."""
