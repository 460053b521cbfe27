"""InfluxDB 1, 2 and 3: the store, and the transport that the node agent shares with it."""
