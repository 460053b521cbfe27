"""Rounds that are kept: inputs, plan and certificate of each, chained, signed, and replayed by an audit."""
