"""The capper: the only privileged process; it applies power-cap leases to the GPUs of this node and has no network."""
