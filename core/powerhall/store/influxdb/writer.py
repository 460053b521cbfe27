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
from powerhall.runtime.files import check_regular
from powerhall.store.influxdb.address import InfluxAddress
from powerhall.store.influxdb.answers import (
    DELIVERED,
    AnswerKind,
    InfluxRefused,
    InfluxUnreachable,
    one_line,
    refused_write,
)
from powerhall.store.influxdb.client import Configuration, write_client

if TYPE_CHECKING:
    import urllib3

__all__ = ["MOST_ANSWER_BYTES", "InfluxWriter"]

MOST_ANSWER_BYTES: Final = 512 << 20
"""Of an answer to a query: the newest values of 350,000 GPUs have some 50 MB."""
_WRITE_ANSWER_BYTES: Final = 1 << 20
_NO_EXPANSION: Final = {"redirect": False, "decode_content": False}
"""Nothing asks for compressed answers, and influxdb-client would expand one without limit."""

_GZIP_LEVEL: Final = 1
"""The fastest level: the agent runs on nodes whose CPU belongs to the jobs."""


class InfluxWriter:
    """The write endpoint of one server and bucket. Connections are kept and may be shared by threads."""

    def __init__(self, address: InfluxAddress, timeout_s: float, most_bytes: int = _WRITE_ANSWER_BYTES) -> None:
        from powerhall.runtime.decode.http_answer import limit_manager

        def configure(configuration: Configuration) -> None:
            configuration.host = address.base_url
            configuration.ssl_ca_cert = address.ca_file
            configuration.timeout = round(1000 * timeout_s)

        try:
            check_regular(address.ca_file)  # a pipe would be waited for without end
        except OSError as error:
            raise ConfigError(f"{address.name}: ca_file: {address.ca_file}: {error.strerror}") from None
        try:
            self._client, self._service, self._api_error = write_client(configure)
        except ImportError:
            raise ConfigError(f"{address.name}: needs influxdb-client; pip install 'powerhall[agent]'") from None
        limit_manager(self.pool, most_bytes)
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
            answer = self._service.post_write_with_http_info(
                org=address.org or "-",
                bucket=address.bucket,
                body=body,
                precision="ms",
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                urlopen_kw=_NO_EXPANSION,
            )
        except self._api_error as error:
            refused = _refused(cast("_ApiError", error))
            if address.version == 1 and refused.kind is AnswerKind.NO_ENDPOINT:
                self._v1_write = True  # before 1.8 there is no v2 endpoint
            else:
                raise
        else:
            self._check(answer)

    def _write_v1(self, body: bytes) -> None:
        database, policy = self._address.database
        query = [("db", database), ("precision", "ms")]
        answer = self._client.call_api(
            "/write",
            "POST",
            query_params=query + ([("rp", policy)] if policy else []),
            header_params={"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"},
            body=body,
            urlopen_kw=_NO_EXPANSION,
        )
        self._check(answer)

    def _check(self, answer: tuple[object, int, Mapping[str, str]]) -> None:
        """Raise InfluxRefused unless the lines are delivered: influxdb-client takes every 2xx for that."""
        _, status, headers = answer
        announced = headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
        is_empty = not announced and "html" not in headers.get("Content-Type", "").lower()
        if status != DELIVERED or not is_empty:  # a 204 has no content: one that announces some is no store's
            raise refused_write(status, headers, "", "an answer that says nothing about the lines")


class _ApiError(Protocol):
    """Attributes of influxdb-client's ApiException."""

    status: int | None
    reason: str | None
    body: str | None
    headers: Mapping[str, str] | None


def _refused(error: _ApiError) -> InfluxRefused:
    status = int(error.status or 0)
    if not status:
        return InfluxRefused(0, one_line(error.reason))
    return refused_write(status, error.headers or {}, str(error.body or ""), str(error.reason or ""))
