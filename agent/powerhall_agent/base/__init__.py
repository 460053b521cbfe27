"""Parts that every layer of the agent uses: clock, log, encoder, counters, durable files."""
