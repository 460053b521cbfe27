"""Delivery: the spool on disk and the shipper that empties it into the stores."""
