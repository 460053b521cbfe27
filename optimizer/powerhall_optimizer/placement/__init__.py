"""Placement: from GPU pools to nodes, within rack, row and feed limits."""
