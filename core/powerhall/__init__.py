"""Parts that every Powerhall package shares: units, topology, jobs, plans, schema, settings, errors and the store."""

__version__ = "0.1.0"
