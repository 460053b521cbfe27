"""Roll-ups: raw GPU readings into racks, halls and the site, those into five minutes; the newest plan into lanes."""
