"""Stores of points and documents: SQLite on one machine, InfluxDB 1, 2 or 3 for a site."""

from powerhall.store.base import Store
from powerhall.store.open import open_store
from powerhall.store.query import Filter, Query, Row, Select, Variable

__all__ = ["Filter", "Query", "Row", "Select", "Store", "Variable", "open_store"]
