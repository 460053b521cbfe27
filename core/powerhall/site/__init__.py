"""The site: topology, site.toml, stores of energy, and curtailments."""
