"""Roll-ups: raw GPU readings of a hall into rack_10s and hall_10s, halls into site_10s, the newest plan into lanes."""
