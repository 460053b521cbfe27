"""Writes to InfluxDB 1.8, 2 and 3 by influxdb-client on /api/v2/write, and to older 1.x by /write.

The store of every command and the output of the node agent send by this class, so that both get the same endpoints,
compression, TLS and timeouts. Proxies of the environment are not used, redirects are not followed, and nothing is
retried: retries are up to the callers.
"""

import gzip
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, cast

from powerhall.runtime.errors import ConfigError
from powerhall.store.influxdb.address import InfluxAddress
from powerhall.store.influxdb.answers import AnswerKind, InfluxRefused, InfluxUnreachable, one_line, server_message
from powerhall.store.influxdb.client import Configuration, write_client

if TYPE_CHECKING:
    import urllib3

__all__ = ["InfluxWriter"]

_GZIP_LEVEL: Final = 1
"""The fastest level: the agent runs on nodes whose CPU belongs to the jobs."""
_MOST_PAUSE_S: Final = 3600.0


class InfluxWriter:
    """The write endpoint of one server and bucket. Connections are kept and may be shared by threads."""

    def __init__(self, address: InfluxAddress, timeout_s: float) -> None:
        def configure(configuration: Configuration) -> None:
            configuration.host = address.base_url
            configuration.ssl_ca_cert = address.ca_file
            configuration.timeout = round(1000 * timeout_s)

        try:
            self._client, self._service, self._api_error = write_client(configure)
        except ImportError:
            raise ConfigError(f"{address.name}: needs influxdb-client; pip install 'powerhall[agent]'") from None
        self._address = address
        self._lock = threading.Lock()
        self._v1_write = False

    @property
    def pool(self) -> "urllib3.PoolManager":
        """The connections, for other requests to the same server."""
        return self._client.rest_client.pool_manager

    def write(self, lines: bytes, authorization: str) -> None:
        """Send line protocol with millisecond timestamps.

        Raises InfluxRefused or InfluxUnreachable; after the second, the lines may have arrived.
        """
        import urllib3.exceptions

        body = gzip.compress(lines, _GZIP_LEVEL, mtime=0)
        with self._lock:
            self._client.default_headers.pop("Authorization", None)
            self._client.default_headers |= {"Authorization": authorization} if authorization else {}
        try:
            if not self._v1_write:
                self._write_v2(body)
            if self._v1_write:
                self._write_v1(body)
        except self._api_error as error:
            raise _refused(cast("_ApiError", error)) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise InfluxUnreachable(error) from None

    def close(self) -> None:
        """Close the connections."""
        self.pool.clear()

    def _write_v2(self, body: bytes) -> None:
        address = self._address
        try:
            self._service.post_write(
                org=address.org or "-",
                bucket=address.bucket,
                body=body,
                precision="ms",
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                urlopen_kw={"redirect": False},
            )
        except self._api_error as error:
            refused = _refused(cast("_ApiError", error))
            if address.version == 1 and refused.kind is AnswerKind.NO_ENDPOINT:
                self._v1_write = True  # before 1.8 there is no v2 endpoint
            else:
                raise

    def _write_v1(self, body: bytes) -> None:
        database, policy = self._address.database
        query = [("db", database), ("precision", "ms")]
        self._client.call_api(
            "/write",
            "POST",
            query_params=query + ([("rp", policy)] if policy else []),
            header_params={"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"},
            body=body,
            _return_http_data_only=True,
            urlopen_kw={"redirect": False},
        )


class _ApiError(Protocol):
    """Attributes of influxdb-client's ApiException."""

    status: int | None
    reason: str | None
    body: str | None
    headers: Mapping[str, str] | None


def _refused(error: _ApiError) -> InfluxRefused:
    status = int(error.status or 0)
    pause = (error.headers or {}).get("Retry-After") or ""
    pause_s = min(float(pause), _MOST_PAUSE_S) if pause.isdigit() else 0.0
    return InfluxRefused(status, _text(error) if status else one_line(error.reason), pause_s)


def _text(error: _ApiError) -> str:
    return server_message(str(error.body or error.reason or ""))
