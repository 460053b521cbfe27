"""HTTP to an InfluxDB server: who we are, which endpoint takes writes, and what each refusal means to the caller."""

import base64
import json
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.store.url import InfluxAddress

if TYPE_CHECKING:
    from influxdb_client.client.influxdb_client import InfluxDBClient
    from influxdb_client.client.write_api import WriteApi

__all__ = ["InfluxHttp"]


class InfluxHttp:
    """Requests to one server. Connections are kept and shared by threads; nothing is retried here."""

    def __init__(self, address: InfluxAddress) -> None:
        try:
            import influxdb_client  # noqa: F401
            import urllib3
        except ImportError:
            raise ConfigError(f"{address.name}: needs influxdb-client; pip install 'powerhall[agent]'") from None
        self.address = address
        self._pool = urllib3.PoolManager(
            maxsize=4,
            timeout=urllib3.Timeout(total=address.timeout_s),
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=address.ca_file,
        )
        self._lock = threading.Lock()
        self._client: tuple[str, InfluxDBClient, WriteApi] | None = None
        self._v1_write = False

    def write(self, lines: bytes) -> None:
        """Send line protocol with millisecond timestamps."""
        if not self._v1_write:
            try:
                self._write_v2(lines)
            except _NoEndpointError:
                self._v1_write = True
        if self._v1_write:
            database, policy = self.address.database
            options = {"db": database, "precision": "ms", **({"rp": policy} if policy else {})}
            self._request(f"/write?{urlencode(options)}", lines, "text/plain; charset=utf-8")

    def query(self, statement: str) -> bytes:
        """Run one InfluxQL statement; times come back in milliseconds."""
        database, policy = self.address.database
        form = {"db": database, "epoch": "ms", "q": statement, **({"rp": policy} if policy else {})}
        return self._request("/query", urlencode(form).encode(), "application/x-www-form-urlencoded")

    def statement(self, text: str) -> bytes:
        """Run one InfluxQL statement that is not about this bucket, such as CREATE DATABASE."""
        return self._request("/query", urlencode({"q": text}).encode(), "application/x-www-form-urlencoded")

    def api(self, method: str, path: str, body: object = None) -> bytes:
        """Call an administration endpoint of version 2 or 3 with the token; return its JSON, which may be empty."""
        headers = {"Content-Type": "application/json", "Authorization": f"Token {self._token()}"}
        return self._send(method, path, None if body is None else json.dumps(body).encode(), headers)

    def refusal(self, status: int, text: str) -> PowerhallError:
        """Build the error for a refusing answer; its text names server and bucket, never a secret."""
        name, message = self.address.name, _message(text)
        if status in (401, 403) or "authorization failed" in message or "unable to parse authentication" in message:
            return ConfigError(f"{name}: not allowed ({status}): {message}; check user, token and their rights")
        if status == 404 or "database not found" in message or "retention policy not found" in message:
            return ConfigError(f"{name}: not found ({status}): {message}; make it by 'powerhall-dashboards init-store'")
        if status in (408, 429) or status >= 500 or "timeout" in message:
            return Retryable(f"{name}: busy ({status}): {message}")
        return Rejected(f"{name}: refused ({status}): {message}")

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()
        with self._lock:
            if self._client:
                self._client[1].close()  # type: ignore[no-untyped-call]
            self._client = None

    def _write_v2(self, lines: bytes) -> None:
        import urllib3
        from influxdb_client.rest import ApiException

        address = self.address
        try:
            self._writer().write(address.bucket, address.org or "-", lines, write_precision="ms")  # type: ignore[arg-type]
        except ApiException as error:
            text = str(error.body or error.reason or "")
            if error.status == 404 and address.version == 1 and "not found" in text and "database" not in text:
                raise _NoEndpointError from None
            if error.status == 0:
                raise ConfigError(f"{address.name}: TLS: {_message(text)}") from None
            raise self.refusal(int(error.status or 0), text) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None

    def _writer(self) -> "WriteApi":
        """Give the write API for the secret as it is now."""
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.client.write_api import SYNCHRONOUS

        address = self.address
        token = self._user_password() if address.version == 1 else self._token()
        with self._lock:
            if self._client is None or self._client[0] != token:
                client = InfluxDBClient(
                    address.base_url,
                    token=token,
                    org=address.org or "-",
                    timeout=round(address.timeout_s * 1000),
                    enable_gzip=True,
                    ssl_ca_cert=address.ca_file,
                    auth_basic=bool(token) and address.version == 1,
                )
                self._client = token, client, client.write_api(write_options=SYNCHRONOUS)
            return self._client[2]

    def _token(self) -> str:
        return self.address.token.read() if self.address.token else self._user_password()

    def _user_password(self) -> str:
        address = self.address
        if address.token is not None:
            return f"{address.user or 'powerhall'}:{address.token.read()}"
        return f"{address.user}:{address.password.read()}" if address.password else ""

    def _request(self, path: str, body: bytes, content_type: str) -> bytes:
        headers = {"Content-Type": content_type}
        secret = self._user_password()
        if secret:
            headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        return self._send("POST", path, body, headers)

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        import urllib3

        try:
            answer = self._pool.request(method, self.address.base_url + path, body=body, headers=headers)
        except urllib3.exceptions.SSLError as error:
            raise ConfigError(f"{self.address.name}: TLS: {_message(str(error))}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        if not 200 <= answer.status < 300:
            raise self.refusal(answer.status, answer.data.decode("utf-8", "replace"))
        return bytes(answer.data)

    def _unreachable(self, error: Exception) -> Retryable:
        return Retryable(f"{self.address.name}: does not answer: {type(error).__name__}: {_message(str(error))}")


class _NoEndpointError(Exception):
    """The server has no /api/v2/write."""


def _message(text: str) -> str:
    """Take the server's own words out of its JSON, on one line."""
    try:
        data = json.loads(text)
    except ValueError:
        data = text
    if isinstance(data, dict):
        data = data.get("error") or data.get("message") or data
    return " ".join(str(data).split())[:300]
