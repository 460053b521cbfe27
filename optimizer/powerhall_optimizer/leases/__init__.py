"""From a verified plan to signed power-cap leases: budgets, caps, and their way to the store."""
