"""Settings of the agent: agent.toml as frozen structs."""
