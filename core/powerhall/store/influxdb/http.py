"""Requests to an InfluxDB server: writes, InfluxQL, administration, and the error that each refusal raises."""

import json
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected, Retryable
from powerhall.store.influxdb.address import InfluxAddress
from powerhall.store.influxdb.answers import (
    AnswerKind,
    InfluxRefused,
    InfluxUnreachable,
    advice,
    classify,
    is_own,
    one_line,
    server_message,
)
from powerhall.store.influxdb.credentials import basic_authorization, token_authorization, write_authorization
from powerhall.store.influxdb.writer import MOST_ANSWER_BYTES, InfluxWriter

__all__ = ["InfluxHttp"]

_FORM = "application/x-www-form-urlencoded"


class InfluxHttp:
    """Requests to one server and bucket. Connections are kept and shared by threads; nothing is retried here.

    Writes go through influxdb-client. Queries go to /query, which that library does not have: it queries in Flux, which
    version 3 does not support.
    """

    def __init__(self, address: InfluxAddress) -> None:
        self.address = address
        self._writer = InfluxWriter(address, address.timeout_s, MOST_ANSWER_BYTES)

    def write(self, lines: bytes) -> None:
        """Send line protocol with millisecond timestamps."""
        try:
            self._writer.write(lines, write_authorization(self.address))
        except InfluxRefused as error:
            raise self._write_refusal(error) from None
        except InfluxUnreachable as error:
            raise Retryable(f"{self.address.name}: {error}") from None

    def query(self, statement: str) -> bytes:
        """Run one InfluxQL statement; times come back in milliseconds. Version 3 has no policies in its names."""
        database, policy = (self.address.bucket, "") if self.address.version == 3 else self.address.database
        form = {"db": database, "epoch": "ms", "q": statement, **({"rp": policy} if policy else {})}
        return self._query(form)

    def statement(self, text: str) -> bytes:
        """Run one InfluxQL statement that is not about this bucket, such as CREATE DATABASE."""
        return self._query({"q": text})

    def api(self, method: str, path: str, body: object = None, *, none_on: AnswerKind | None = None) -> bytes | None:
        """Call an administration endpoint of version 2 or 3 with the token; return its JSON, which may be empty.

        None is a refusal of the kind `none_on`.
        """
        data = None if body is None else json.dumps(body).encode()
        authorization = token_authorization(self.address)
        return self._send(method, path, data, "application/json", authorization, none_on=none_on)

    def date_s(self) -> float | None:
        """Return the time of the server's answer to /ping, whatever its status; None where it gives none."""
        import urllib3

        timeout = urllib3.Timeout(total=self.address.timeout_s)
        try:
            answer = self._writer.pool.request("GET", f"{self.address.base_url}/ping", timeout=timeout, retries=False)
            return parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        except urllib3.exceptions.SSLError as error:
            raise ConfigError(f"{self.address.name}: TLS: {one_line(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Retryable(f"{self.address.name}: {InfluxUnreachable(error)}") from None
        except (ValueError, OverflowError, TypeError):
            return None

    def refusal(self, text: str) -> PowerhallError:
        """Return the error for one that InfluxQL reports within an answer; it names server and bucket, no secret."""
        message = one_line(text)
        return self._refusal(classify(200, message), 200, message)

    def close(self) -> None:
        """Close the connections."""
        self._writer.close()

    def _write_refusal(self, error: InfluxRefused) -> PowerhallError:
        name, status, message = self.address.name, error.status, error.message
        if error.kind is AnswerKind.FOREIGN:
            return Retryable(f"{name}: not an answer of InfluxDB ({status}): {message}; is a proxy or a login between?")
        return self._refusal(error.kind, status, message)

    def _refusal(self, kind: AnswerKind, status: int, message: str) -> PowerhallError:
        name = self.address.name
        if kind is AnswerKind.TLS:
            return ConfigError(f"{name}: TLS: {message}")
        if kind is AnswerKind.NOT_ALLOWED:
            return ConfigError(
                f"{name}: not allowed ({status}): {message}; {advice(kind, message, self.address.bucket)}"
            )
        if kind in {AnswerKind.NO_BUCKET, AnswerKind.NO_ENDPOINT}:
            return ConfigError(f"{name}: not found ({status}): {message}; {advice(kind, message, self.address.bucket)}")
        if kind in {AnswerKind.BUSY, AnswerKind.FAULT}:
            return Retryable(f"{name}: busy ({status}): {message}")
        return Rejected(f"{name}: refused ({status}): {message}")

    def _query(self, form: dict[str, str]) -> bytes:
        return self._send("POST", "/query", urlencode(form).encode(), _FORM, basic_authorization(self.address)) or b""

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        content_type: str,
        authorization: str,
        *,
        none_on: AnswerKind | None = None,
    ) -> bytes | None:
        import urllib3

        from powerhall.runtime.decode.http_answer import read_answer

        address = self.address
        headers = {"Content-Type": content_type} | ({"Authorization": authorization} if authorization else {})
        timeout = urllib3.Timeout(total=address.timeout_s)
        try:
            answer = self._writer.pool.request(
                method,
                address.base_url + path,
                body=body,
                headers=headers,
                timeout=timeout,
                retries=False,
                preload_content=False,
            )
            data = read_answer(answer, address.name, MOST_ANSWER_BYTES)
        except urllib3.exceptions.SSLError as error:
            raise ConfigError(f"{address.name}: TLS: {one_line(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Retryable(f"{address.name}: {InfluxUnreachable(error)}") from None
        if not 200 <= answer.status < 300:
            text = data.decode("utf-8", "replace")
            message = server_message(text)
            kind = classify(answer.status, message, own=is_own(answer.headers, text))
            if kind is none_on:
                return None
            raise self._refusal(kind, answer.status, message)
        return data
