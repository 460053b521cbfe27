"""The emergency shed: a ladder of prepared actions, executed without solving."""
