"""Authorization headers for an InfluxDB server, from secret files that are read at every call.

Version 1 takes user and password, versions 2 and 3 a token. Every version takes the token as a password at /query.
"""

import base64

from powerhall.store.influxdb.address import InfluxAddress

__all__ = ["basic_authorization", "token_authorization", "write_authorization"]

_USER = "powerhall"
"""A user name where the URL has none: a server that checks a token ignores it."""


def write_authorization(address: InfluxAddress) -> str:
    """Return the Authorization header of a write, "" without a secret; ConfigError names a file that is unreadable."""
    return basic_authorization(address) if address.version == 1 else token_authorization(address)


def basic_authorization(address: InfluxAddress) -> str:
    """Return the header of InfluxQL's endpoints, "" without a secret."""
    secret = _secret(address)
    return "Basic " + base64.b64encode(_user_secret(address, secret).encode()).decode() if secret else ""


def token_authorization(address: InfluxAddress) -> str:
    """Return the header of the /api endpoints, "" without a secret."""
    secret = _secret(address)
    if not secret:
        return ""
    return f"Token {secret if address.token else _user_secret(address, secret)}"


def _secret(address: InfluxAddress) -> str:
    if address.token:
        return address.token.read_token()
    return address.password.read_line() if address.password else ""


def _user_secret(address: InfluxAddress, secret: str) -> str:
    return f"{address.user or _USER}:{secret}"
