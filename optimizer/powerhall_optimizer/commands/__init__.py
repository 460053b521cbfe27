"""Sub-commands: one module each with `add_parser`."""
