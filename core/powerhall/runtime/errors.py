"""The exceptions of Powerhall, one branch per reaction of the caller.

* PowerhallError
  x Retryable      try again later: a server is busy, a lock is held, a network is cut
  x Rejected       never as it is: the line says file, field, value and what is allowed
    + ConfigError  a settings or site file that is refused
"""

__all__ = ["ConfigError", "PowerhallError", "Rejected", "Retryable"]

_MOST_CHARS = 2_000
_MOST_VALUE_CHARS = 200


class PowerhallError(Exception):
    """Root of all errors that Powerhall raises on purpose; its text is one line that a person can act on."""

    def __str__(self) -> str:
        """Return the text on one line and of limited length, whatever names and values from outside are in it."""
        text = super().__str__()
        if not text.isprintable():
            text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: _MOST_CHARS + 1])
        return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 4]} ..."


class Retryable(PowerhallError):  # noqa: N818 - named after what the caller does
    """The same call may succeed later."""


class Rejected(PowerhallError):  # noqa: N818 - named after what the caller does
    """The same call will never succeed; the input has to change."""

    @classmethod
    def field(cls, source: str, field: str, value: object, allowed: str) -> "Rejected":
        """Build the one-line refusal: `site.toml: halls[0].power_limit: '-3 MW': must be a positive power`."""
        shown = repr(value)
        if len(shown) > _MOST_VALUE_CHARS:
            shown = f"{shown[: _MOST_VALUE_CHARS - 4]} ..."
        return cls(f"{source}: {field}: {shown}: {allowed}")


class ConfigError(Rejected):
    """A settings or site file is refused."""
