"""The plan file: snapshot, assignments, bound, for one site or several."""
