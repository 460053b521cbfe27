"""Writes to InfluxDB 1.8, 2 and 3 by influxdb-client on /api/v2/write, and to older 1.x by /write.

The store of every command and the output of the node agent send by this class, so that both get the same endpoints,
compression, TLS and timeouts. Proxies of the environment are not used, redirects are not followed, and nothing is
retried: retries are up to the callers.

The library's connections, TLS and errors are used, and not its services, which find out anew at each write what never
changes: the address, its parameters, the headers.
"""

import gzip
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import urlencode

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
from powerhall.store.influxdb.client import Configuration, RestResponse, write_client

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
            self._client, self._api_error = write_client(configure)
        except ImportError:
            raise ConfigError(f"{address.name}: needs influxdb-client; pip install 'powerhall[agent]'") from None
        limit_manager(self.pool, most_bytes)
        self._address = address
        self._v1_write = False
        database, policy = address.database
        v2 = {"org": address.org or "-", "bucket": address.bucket, "precision": "ms"}
        v1 = {"db": database, "precision": "ms"} | ({"rp": policy} if policy else {})
        self._v2_url = f"{address.base_url}/api/v2/write?{urlencode(v2)}"
        self._v1_url = f"{address.base_url}/write?{urlencode(v1)}"
        self._headers = {
            **self._client.default_headers,
            "Accept": "application/json",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Encoding": "gzip",
        }

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
        headers = self._headers | ({"Authorization": authorization} if authorization else {})
        try:
            if not self._v1_write:
                self._write_v2(body, headers)
            if self._v1_write:
                self._check(self._post(self._v1_url, body, headers))
        except self._api_error as error:
            raise _refused(cast("_ApiError", error)) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise InfluxUnreachable(error) from None

    def close(self) -> None:
        """Close the connections."""
        self.pool.clear()

    def _write_v2(self, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            answer = self._post(self._v2_url, body, headers)
        except self._api_error as error:
            refused = _refused(cast("_ApiError", error))
            if self._address.version == 1 and refused.kind is AnswerKind.NO_ENDPOINT:
                self._v1_write = True  # before 1.8 there is no v2 endpoint
            else:
                raise
        else:
            self._check(answer)

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> RestResponse:
        return self._client.rest_client.request("POST", url, headers=headers, body=body, **_NO_EXPANSION)

    @staticmethod
    def _check(answer: RestResponse) -> None:
        """Raise InfluxRefused unless the lines are delivered: influxdb-client takes every 2xx for that."""
        status, headers = answer.status, answer.getheaders()
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
