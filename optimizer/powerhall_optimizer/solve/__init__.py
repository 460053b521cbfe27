"""The solver pipeline: repair, prices, greedy, neighbourhood search, exact; each stage runs alone."""
