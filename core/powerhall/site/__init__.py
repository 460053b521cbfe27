"""The site: topology, site.toml, storage, and curtailments."""
