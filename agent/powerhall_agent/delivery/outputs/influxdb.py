"""Output to InfluxDB 1.8, 2 and 3 by influxdb-client's synchronous write on /api/v2/write, and to older 1.x by /write.

Every answer becomes one of three: delivered, Rejected (400, 413, 422: the batch is halved to find the bad line), or
Retryable (everything else, socket errors and answers that are no HTTP included). Secret files are read again when the
server says 401 or 403, so that a rotated token needs no restart. Secrets are in no text that leaves this module.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.store.url import InfluxAddress
from powerhall_agent.delivery.outputs.base import SetupError, StoreBusy
from powerhall_agent.delivery.outputs.influx_client import write_client
from powerhall_agent.delivery.outputs.refusals import PointsTooOld, Refusal, classify
from powerhall_agent.delivery.outputs.sockets import track_sockets

__all__ = ["InfluxOutput"]

_GZIP_LEVEL: Final = 1


class InfluxOutput:
    """One server and bucket. One `send` at a time; `cut` may come from another thread."""

    def __init__(self, address: InfluxAddress, timeout_s: float) -> None:
        self._address = address

        def configure(configuration: Any) -> None:  # noqa: ANN401 - influxdb-client's own class
            configuration.host = address.base_url
            configuration.ssl_ca_cert = address.ca_file
            configuration.timeout = round(1000 * min(timeout_s, address.timeout_s))

        self._client, self._service, self._error = write_client(configure)
        self._v1_write = False
        self._authorization: str | None = None
        self._sockets = track_sockets(self._client.rest_client.pool_manager)

    def send(self, lines: bytes) -> None:
        """Deliver the lines; an expired token is read again from its file once per call."""
        try:
            self._send_once(lines)
        except _NotAllowedError as error:
            before, self._authorization = self._authorization, None
            if self._secret() == before:
                raise SetupError(str(error)) from None
            try:
                self._send_once(lines)
            except _NotAllowedError as again:
                raise SetupError(str(again)) from None

    def cut(self) -> None:
        """Shut the connection in use."""
        self._sockets.shut()

    def _send_once(self, lines: bytes) -> None:
        import urllib3.exceptions

        body = gzip.compress(lines, _GZIP_LEVEL, mtime=0)
        self._client.default_headers["Authorization"] = self._secret()
        try:
            if not self._v1_write:
                self._write_v2(body)
            if self._v1_write:
                self._write_v1(body)
        except self._error as error:
            raise self._refusal(error) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._sockets.shut()
            raise Retryable(f"{self._address.name}: does not answer: {type(error).__name__}: {_line(error)}") from None

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
        except self._error as error:
            if address.version == 1 and _meaning(error) is Refusal.NO_ENDPOINT:
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

    def _secret(self) -> str:
        """Return the Authorization header for what the secret files hold now."""
        if self._authorization is None:
            address = self._address
            try:
                secret = address.token or address.password
                text = secret.read() if secret else ""
            except ConfigError as error:
                raise SetupError(str(error)) from None
            user = f"{address.user or 'powerhall'}:{text}"
            if not text:
                self._authorization = ""
            elif address.version == 1:
                self._authorization = "Basic " + base64.b64encode(user.encode()).decode()
            else:
                self._authorization = f"Token {text if address.token else user}"
        return self._authorization

    def _refusal(self, error: "_ServerError") -> Exception:
        """Turn a refusing answer into what the shipper does next."""
        status, name, text = int(error.status or 0), self._address.name, _body(error)
        refusal = _meaning(error)
        if refusal is Refusal.NOT_ALLOWED:
            return _NotAllowedError(f"{name}: not allowed ({status}): {text}; check the token file and its rights")
        if refusal in {Refusal.NO_BUCKET, Refusal.NO_ENDPOINT}:
            return SetupError(f"{name}: not found ({status}): {text}; does the bucket {self._address.bucket!r} exist?")
        if refusal is Refusal.TLS:
            return SetupError(f"{name}: TLS: {_line(error.reason)}")
        if refusal is Refusal.REDIRECT:
            return SetupError(f"{name}: redirects ({status}); give the store's own address")
        if refusal in {Refusal.LINES, Refusal.TOO_OLD}:
            kind = Rejected if refusal is Refusal.LINES else PointsTooOld
            return kind(f"refused ({status}): {text}")
        return StoreBusy(f"{name}: busy ({status}): {text}", _seconds((error.headers or {}).get("Retry-After")))


class _ServerError(Protocol):
    """What influxdb-client's ApiException tells."""

    status: int | None
    reason: str | None
    body: str | None
    headers: Mapping[str, str] | None


class _NotAllowedError(Exception):
    """The server refused the credentials that we last read."""


def _meaning(error: "_ServerError") -> Refusal:
    return classify(int(error.status or 0), _body(error))


def _body(error: "_ServerError") -> str:
    text = str(error.body or error.reason or "")
    try:
        data = json.loads(text)
    except ValueError:
        return _line(text)
    if isinstance(data, dict):
        data = data.get("error") or data.get("message") or data
    return _line(data)


def _line(value: object) -> str:
    return " ".join(str(value).split())[:300]


def _seconds(text: str | None) -> float:
    return min(float(text), 3600.0) if text and text.isdigit() else 0.0
