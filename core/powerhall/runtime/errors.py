"""The exceptions of Powerhall, one branch per reaction of the caller.

* PowerhallError
  x Retryable      try again later: a server is busy, a lock is held, a network is cut
  x Rejected       never as it is: the line says file, field, value and what is allowed
    + ConfigError  a settings or site file that is refused
"""

__all__ = ["ConfigError", "PowerhallError", "Rejected", "Retryable"]


class PowerhallError(Exception):
    """Root of all errors that Powerhall raises on purpose; its text is one line that a person can act on."""


class Retryable(PowerhallError):  # noqa: N818 - named after what the caller does
    """The same call may succeed later."""


class Rejected(PowerhallError):  # noqa: N818 - named after what the caller does
    """The same call will never succeed; the input has to change."""

    @classmethod
    def field(cls, source: str, field: str, value: object, allowed: str) -> "Rejected":
        """Build the one-line refusal: `site.toml: halls[0].power_limit: '-3 MW': must be a positive power`."""
        return cls(f"{source}: {field}: {value!r}: {allowed}")


class ConfigError(Rejected):
    """A settings or site file is refused."""
