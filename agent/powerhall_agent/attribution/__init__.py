"""Job attribution: which job used which GPU from when to when, as a table of intervals and not as tags."""
