"""Where a server listens, and the token that it asks for."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.settings import Secret

__all__ = ["IpAddress", "bind", "check_reach", "checked_token", "read_address"]

IpAddress = IPv4Address | IPv6Address
_SHORTEST_TOKEN = 32


def read_address(text: str, option: str, example: str) -> tuple[IpAddress, int]:
    """Read IP:PORT, an IPv6 address in brackets; a name would leave open where the server listens.

    `option` begins the text of the ConfigError that refuses anything else, such as `shed: --serve`.
    """
    host, _, port = text.rpartition(":")
    try:
        return ip_address(host.strip("[]").replace("localhost", "127.0.0.1")), int(port)
    except ValueError:
        raise ConfigError(f"{option}: {text!r}: must be IP:PORT, such as {example}") from None


def check_reach(host: IpAddress, option: str, text: str, *, tls: bool, allow_http: bool) -> None:
    """Raise ConfigError for an address beyond loopback without TLS."""
    if not (host.is_loopback or tls or allow_http):
        allowed = "beyond loopback needs --tls-cert and --tls-key, or --allow-http behind a proxy that has TLS"
        raise ConfigError(f"{option}: {text!r}: {allowed}")


def bind(host: IpAddress, port: int, option: str, text: str) -> socket.socket:
    """Return a bound socket; an address that cannot be had raises ConfigError."""
    family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
    try:
        return socket.create_server((str(host), port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{option}: {text!r}: {getattr(error, 'strerror', None) or error}") from None


def checked_token(token: Secret) -> str:
    """Return the text of a token; a file that cannot be read, or holds a short one, raises ConfigError."""
    text = token.read()
    if len(text) < _SHORTEST_TOKEN:
        raise ConfigError(f"{token.path}: token: must have at least {_SHORTEST_TOKEN} characters")
    return text
