"""Kinds of cooling plants: one module each, registered in `kinds`."""
