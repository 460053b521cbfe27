"""Roll-ups: GPU readings to racks, halls and the site, those to five minutes; the newest plan to Gantt rows."""
