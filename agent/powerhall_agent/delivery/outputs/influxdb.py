"""Output to InfluxDB 1, 2 and 3, by the writer that every command uses.

Every answer becomes one of three: delivered (204 with a complete header), Rejected (the store's own 400, 413, 422, and
a 500 that begins as its messages about lines do: the batch is halved to find the bad line), or Retryable (everything
else: socket errors, answers that are not HTTP, answers of something other than the store, which are ForeignAnswerError,
and the store's own other 500s, which are StoreFault). Secret files are read again when the
server says 401 or 403, so that a rotated token needs no restart.
"""

from collections.abc import Mapping

from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.store.classes import split_lines
from powerhall.store.influxdb.address import InfluxAddress, parse_influx_url
from powerhall.store.influxdb.answers import AnswerKind, InfluxRefused, InfluxUnreachable, advice, too_old_points
from powerhall.store.influxdb.credentials import write_authorization
from powerhall.store.influxdb.writer import InfluxWriter
from powerhall.store.schema import RETENTION_DAYS, Retention
from powerhall_agent.delivery.errors import (
    ForeignAnswerError,
    PointsTooOld,
    RefusedByForm,
    RequestTooLarge,
    SetupError,
    StoreBusy,
    StoreFault,
)
from powerhall_agent.delivery.outputs.base import Output
from powerhall_agent.delivery.outputs.sockets import track_sockets

__all__ = ["ClassOutputs", "InfluxOutput", "open_output"]


class InfluxOutput:
    """One server and bucket. One `send` at a time; `cut` may come from another thread."""

    def __init__(self, address: InfluxAddress, timeout_s: float) -> None:
        self._address = address
        self._writer = InfluxWriter(address, min(timeout_s, address.timeout_s))
        self._authorization: str | None = None
        self._sockets = track_sockets(self._writer.pool)

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
        try:
            self._writer.write(lines, self._secret())
        except InfluxRefused as error:
            raise self._refusal(error) from None
        except InfluxUnreachable as error:
            self._sockets.shut()
            raise Retryable(f"{self._address.name}: {error}") from None

    def _secret(self) -> str:
        """Return the Authorization header from the secrets that were read last."""
        if self._authorization is None:
            try:
                self._authorization = write_authorization(self._address)
            except ConfigError as error:
                raise SetupError(str(error)) from None
        return self._authorization

    def _refusal(self, error: InfluxRefused) -> Exception:
        """Map an error response to the error that the shipper handles."""
        name, status, text = self._address.name, error.status, error.message
        answered = f"({status}): {text}"
        found: Exception
        match error.kind:
            case AnswerKind.NOT_ALLOWED:
                found = _NotAllowedError(
                    f"{name}: not allowed {answered}; {advice(error.kind, text, self._address.bucket)}"
                )
            case AnswerKind.NO_BUCKET | AnswerKind.NO_ENDPOINT:
                found = SetupError(f"{name}: not found {answered}; {advice(error.kind, text, self._address.bucket)}")
            case AnswerKind.TLS:
                found = SetupError(f"{name}: TLS: {text}")
            case AnswerKind.REDIRECT:
                found = SetupError(f"{name}: redirects ({status}); give the store's own address")
            case AnswerKind.FOREIGN:
                what = "is a proxy or a login page between, or is this the address of another server?"
                found = ForeignAnswerError(f"{name}: not an answer of InfluxDB {answered}; {what}")
            case AnswerKind.TOO_LARGE:
                found = RequestTooLarge(f"{name}: too large for something before the store {answered}")
            case AnswerKind.LINES | AnswerKind.TOO_OLD if not error.certain:
                found = RefusedByForm(f"refused {answered}")
            case AnswerKind.LINES:
                found = Rejected(f"refused {answered}")
            case AnswerKind.TOO_OLD:
                found = PointsTooOld(f"refused {answered}", too_old_points(text))
            case AnswerKind.FAULT:
                found = StoreFault(f"{name}: failed {answered}", error.retry_after_s)
            case _:
                found = StoreBusy(f"{name}: busy {answered}", error.retry_after_s)
        return found


class ClassOutputs:
    """One output per class of retention; a batch is delivered when every class has its lines."""

    def __init__(self, outputs: Mapping[Retention, Output]) -> None:
        self._outputs = outputs

    def send(self, lines: bytes) -> None:
        """Deliver class by class; after a failure the whole batch comes again, which changes nothing."""
        for retention, part in split_lines(lines).items():
            self._outputs[retention].send(part)

    def cut(self) -> None:
        """Cut them all: one of them is in use."""
        for output in self._outputs.values():
            output.cut()


class _NotAllowedError(Exception):
    """The server refused the credentials that were last read."""


def open_output(url: str, timeout_s: float) -> Output:
    """Open the output of an `influxdb://` URL."""
    address = parse_influx_url(url)
    if address.by_class:
        return ClassOutputs({name: InfluxOutput(address.of_class(name), timeout_s) for name in RETENTION_DAYS})
    return InfluxOutput(address, timeout_s)
