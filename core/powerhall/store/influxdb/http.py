"""Requests to an InfluxDB server: writes, InfluxQL, administration, and the error that each refusal raises."""

import json
from urllib.parse import urlencode

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.store.influxdb.address import InfluxAddress
from powerhall.store.influxdb.answers import (
    AnswerKind,
    InfluxRefused,
    InfluxUnreachable,
    classify,
    one_line,
    server_message,
)
from powerhall.store.influxdb.credentials import basic_authorization, token_authorization, write_authorization
from powerhall.store.influxdb.writer import InfluxWriter

__all__ = ["InfluxHttp"]

_FORM = "application/x-www-form-urlencoded"


class InfluxHttp:
    """Requests to one server and bucket. Connections are kept and shared by threads; nothing is retried here.

    Writes go through influxdb-client. Queries go to /query, which that library does not have: it queries in Flux, which
    version 3 does not support.
    """

    def __init__(self, address: InfluxAddress) -> None:
        self.address = address
        self._writer = InfluxWriter(address, address.timeout_s)

    def write(self, lines: bytes) -> None:
        """Send line protocol with millisecond timestamps."""
        try:
            self._writer.write(lines, write_authorization(self.address))
        except InfluxRefused as error:
            raise self._refusal(error.kind, error.status, error.message) from None
        except InfluxUnreachable as error:
            raise Retryable(f"{self.address.name}: {error}") from None

    def query(self, statement: str) -> bytes:
        """Run one InfluxQL statement; times come back in milliseconds."""
        database, policy = self.address.database
        form = {"db": database, "epoch": "ms", "q": statement, **({"rp": policy} if policy else {})}
        return self._query(form)

    def statement(self, text: str) -> bytes:
        """Run one InfluxQL statement that is not about this bucket, such as CREATE DATABASE."""
        return self._query({"q": text})

    def api(self, method: str, path: str, body: object = None) -> bytes:
        """Call an administration endpoint of version 2 or 3 with the token; return its JSON, which may be empty."""
        data = None if body is None else json.dumps(body).encode()
        return self._send(method, path, data, "application/json", token_authorization(self.address))

    def refusal(self, status: int, text: str) -> PowerhallError:
        """Return the error for a refusing answer; its text names server and bucket, never a secret."""
        message = server_message(text)
        return self._refusal(classify(status, message), status, message)

    def close(self) -> None:
        """Close the connections."""
        self._writer.close()

    def _refusal(self, kind: AnswerKind, status: int, message: str) -> PowerhallError:
        """Return the error for an answer; an error of InfluxQL comes with any status, so that its text counts too."""
        name = self.address.name
        if kind is AnswerKind.TLS:
            return ConfigError(f"{name}: TLS: {message}")
        if kind is AnswerKind.NOT_ALLOWED or _has(message, "authorization failed", "unable to parse authentication"):
            return ConfigError(f"{name}: not allowed ({status}): {message}; check user, token and their rights")
        if kind in {AnswerKind.NO_BUCKET, AnswerKind.NO_ENDPOINT} or _has(
            message, "database not found", "retention policy not found"
        ):
            return ConfigError(f"{name}: not found ({status}): {message}; make it by 'powerhall-dashboards init-store'")
        if kind is AnswerKind.BUSY or _has(message, "timeout"):
            return Retryable(f"{name}: busy ({status}): {message}")
        return Rejected(f"{name}: refused ({status}): {message}")

    def _query(self, form: dict[str, str]) -> bytes:
        return self._send("POST", "/query", urlencode(form).encode(), _FORM, basic_authorization(self.address))

    def _send(self, method: str, path: str, body: bytes | None, content_type: str, authorization: str) -> bytes:
        import urllib3

        address = self.address
        headers = {"Content-Type": content_type} | ({"Authorization": authorization} if authorization else {})
        timeout = urllib3.Timeout(total=address.timeout_s)
        try:
            answer = self._writer.pool.request(
                method, address.base_url + path, body=body, headers=headers, timeout=timeout, retries=False
            )
        except urllib3.exceptions.SSLError as error:
            raise ConfigError(f"{address.name}: TLS: {one_line(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Retryable(f"{address.name}: {InfluxUnreachable(error)}") from None
        if not 200 <= answer.status < 300:
            raise self.refusal(answer.status, answer.data.decode("utf-8", "replace"))
        return bytes(answer.data)


def _has(message: str, *texts: str) -> bool:
    return any(text in message for text in texts)
