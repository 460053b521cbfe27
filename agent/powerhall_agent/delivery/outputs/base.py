"""Where batches go: InfluxDB by influxdb-client's synchronous write service, or any other store by its URL."""

from collections.abc import Mapping
from typing import Protocol

from powerhall.runtime.errors import Retryable
from powerhall.store.classes import split_lines
from powerhall.store.schema import RETENTION_DAYS, Retention

__all__ = ["Output", "SetupError", "StoreBusy", "open_output"]


class Output(Protocol):
    """A place that takes lines whole and synchronously."""

    def send(self, lines: bytes) -> None:
        """Deliver newline-terminated lines; returns when the store has them.

        Retryable (with its children StoreBusy and SetupError): nothing may have arrived, send the same again.
        Rejected: some line of them is refused; the others may have arrived.
        """
        ...

    def cut(self) -> None:
        """End a request that takes too long; its `send` then raises Retryable."""
        ...


class StoreBusy(Retryable):
    """The store asks for a pause of `after_s` seconds."""

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


class SetupError(Retryable):
    """A person has to act (token, bucket, address); the points wait in the spool until then."""


class _ByClass:
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


def open_output(url: str, timeout_s: float) -> Output:
    """Open the output of a store URL; a URL that makes no sense raises ConfigError."""
    if url.startswith("influxdb://"):
        from powerhall.store.url import parse_influx_url
        from powerhall_agent.delivery.outputs.influxdb import InfluxOutput

        address = parse_influx_url(url)
        if address.by_class:
            return _ByClass({name: InfluxOutput(address.of_class(name), timeout_s) for name in RETENTION_DAYS})
        return InfluxOutput(address, timeout_s)
    from powerhall_agent.delivery.outputs.store import StoreOutput

    return StoreOutput(url)
