"""Sub-commands of `powerhall-dashboards`, one file each, with its options and output."""
