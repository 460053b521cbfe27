"""The capper: the only privileged process; it holds the node to its power-cap leases and knows no network."""
