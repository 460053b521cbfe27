"""Planning: candidate plans, their choice, and their explanation."""
