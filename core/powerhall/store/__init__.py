"""Stores of points and documents: SQLite on one machine, InfluxDB 1, 2 or 3 for a site, one for each hall."""

from powerhall.store.base import Ask, ServerClock, Store, what_answers
from powerhall.store.open import existing_store, open_store
from powerhall.store.query import Filter, Query, Row, Select, Variable

__all__ = [
    "Ask",
    "Filter",
    "Query",
    "Row",
    "Select",
    "ServerClock",
    "Store",
    "Variable",
    "existing_store",
    "open_store",
    "what_answers",
]
