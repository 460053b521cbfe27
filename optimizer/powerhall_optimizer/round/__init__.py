"""A round: observe, plan, verify, publish, for one site or several."""
