"""URLs of InfluxDB stores: `influxdb://HOST:PORT/BUCKET?version=1|2|3&token_file=...`."""

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, unquote, urlsplit

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.settings import Secret
from powerhall.store.schema import Retention

__all__ = ["OPTIONS", "InfluxAddress", "parse_influx_url"]

OPTIONS = (
    "version",
    "org",
    "token_file",
    "user",
    "password_file",
    "tls",
    "ca_file",
    "allow_http",
    "timeout_s",
    "retention",
    "prefix",
)


@dataclass(frozen=True, slots=True)
class InfluxAddress:
    """Where an InfluxDB is, with the path of a proxy before it, and how to log in.

    `bucket` is BUCKET, or DATABASE/RETENTION_POLICY for version 1.

    `by_class`: BUCKET holds the class `fine`, BUCKET/recent and BUCKET/history the others; in version 1 these are
    retention policies of one database, in version 2 buckets, in version 3 databases.
    """

    base_url: str
    bucket: str
    version: int = 2
    org: str = ""
    token: Secret | None = None
    user: str = ""
    password: Secret | None = None
    ca_file: str | None = None
    timeout_s: float = 10.0
    by_class: bool = False

    def of_class(self, retention: Retention) -> "InfluxAddress":
        """Return where a class of retention is kept; this very address where all classes share it."""
        if not self.by_class or retention == "fine":
            return self
        return replace(self, bucket=f"{self.bucket}/{retention}")

    @property
    def name(self) -> str:
        """Name for errors and logs; holds no secret."""
        return f"{self.base_url}/{self.bucket}"

    @property
    def database(self) -> tuple[str, str]:
        """Database and retention policy ("" for the default one) of the bucket in InfluxQL."""
        name, _, policy = self.bucket.partition("/")
        return name, policy


def parse_influx_url(url: str) -> InfluxAddress:
    """Read an `influxdb://` URL; a wrong one raises ConfigError that names the part."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ConfigError(f"store URL: {parts.hostname}: must not hold a password; use password_file or token_file")
    _check_scheme(url)
    where = f"influxdb://{parts.netloc}{parts.path}"
    options = _options(parts.query, where)
    bucket = unquote(parts.path.strip("/"))
    try:
        port = parts.port or 8086
    except ValueError:
        raise ConfigError.field(where, "port", parts.netloc, "must be a number up to 65535") from None
    if not parts.hostname or not bucket:
        raise ConfigError(f"store URL: {where}: must be influxdb://HOST:PORT/BUCKET")
    version = _choice(where, options, "version", "2", ("1", "2", "3"))
    by_class = _choice(where, options, "retention", "one", ("one", "classes")) == "classes"
    if by_class and "/" in bucket:
        raise ConfigError.field(where, "bucket", bucket, "must not name a retention policy with retention=classes")
    scheme = _scheme(where, parts.hostname, options)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return InfluxAddress(
        base_url=f"{scheme}://{host}:{port}{_prefix(where, options)}",
        bucket=bucket,
        version=int(version),
        org=options.get("org", ""),
        token=Secret(options["token_file"]) if "token_file" in options else None,
        user=options.get("user", ""),
        password=Secret(options["password_file"]) if "password_file" in options else None,
        ca_file=options.get("ca_file"),
        timeout_s=_seconds(where, options.get("timeout_s", "10")),
        by_class=by_class,
    )


def _check_scheme(url: str) -> None:
    scheme, colon, _ = url.partition("://")
    shown = scheme if colon else ""
    if shown.lower() != "influxdb":
        raise ConfigError(f"store URL: scheme: {shown!r}: must be influxdb://HOST:PORT/BUCKET")


def _options(query: str, where: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key in ("token", "password"):
            raise ConfigError(f"{where}: {key}: must not stand in the URL; put it into a file and name it {key}_file")
        if key not in OPTIONS:
            raise ConfigError.field(where, "option", key, f"must be one of {', '.join(OPTIONS)}")
    return options


def _choice(where: str, options: dict[str, str], key: str, default: str, allowed: tuple[str, ...]) -> str:
    value = options.get(key, default)
    if value not in allowed:
        raise ConfigError.field(where, key, value, f"must be one of {', '.join(allowed)}")
    return value


def _scheme(where: str, host: str, options: dict[str, str]) -> str:
    """Return https, or http where the server is on this machine or the URL says allow_http=true."""
    local = _is_loopback(host)
    tls = _choice(where, options, "tls", "false" if local else "true", ("true", "false"))
    allow_http = _choice(where, options, "allow_http", "false", ("true", "false"))
    if tls == "false" and not local and allow_http == "false":
        raise ConfigError(
            f"{where}: tls=false sends tokens in the clear to another machine; allow it by allow_http=true"
        )
    return "https" if tls == "true" else "http"


def _prefix(where: str, options: dict[str, str]) -> str:
    """Return the path under which a proxy has the server, "" for none."""
    prefix = options.get("prefix", "").strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", prefix) or ".." in prefix.split("/"):
        raise ConfigError.field(where, "prefix", prefix, "must be a path such as influx, of letters, digits and ._~-/")
    return f"/{prefix}" if prefix else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 3600.0:
        raise ConfigError.field(where, "timeout_s", text, "must be a number of seconds up to 3600")
    return value
