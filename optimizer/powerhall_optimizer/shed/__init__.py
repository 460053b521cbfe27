"""The emergency shed: a ladder of ready actions, and acting on it without solving anything."""
