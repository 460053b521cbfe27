"""Bills from the store: who used how much energy, what it cost, and how far that adds up to the meter."""
