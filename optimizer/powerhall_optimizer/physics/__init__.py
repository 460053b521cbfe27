"""Physics for planning: limits, linearisation, and the loads that a plan causes."""
