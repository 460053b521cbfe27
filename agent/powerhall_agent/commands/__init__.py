"""Sub-commands of `powerhall-agent`."""
