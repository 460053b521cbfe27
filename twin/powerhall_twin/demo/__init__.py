"""The demo: a simulated day with real agents, rounds and roll-up."""
