"""Everything that comes from outside is read here: with limits, as UTF-8, and refused in one line with file and place.

`limits` has the limits and their one setting; docs/security.md lists every entry point. Each reader raises Rejected
(ConfigError for settings) whose text names the source, the place and what is allowed, or the error of its docstring.
"""
