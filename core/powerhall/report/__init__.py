"""HTML reports: the base template of every page, and how a page is rendered from it."""
