"""Job attribution: intervals of jobs on GPUs, stored as a table and not as tags."""
