"""The live pages of `powerhall-dashboards serve`: the first screen and each dashboard, read from a store."""
