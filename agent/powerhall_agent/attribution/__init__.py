"""Which job uses which GPU, from when to when: an interval table, never a tag of the readings."""
