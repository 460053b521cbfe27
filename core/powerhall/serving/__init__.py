"""A small HTTP server with bounds for all that clients can make it keep: for the shed's events and the live pages.

It needs h11, which the extras `optimizer` and `dashboards` bring; a GPU host imports nothing of it.
"""
