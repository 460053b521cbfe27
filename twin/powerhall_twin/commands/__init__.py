"""Sub-commands of `powerhall-twin`, one file each, with its options and output."""
