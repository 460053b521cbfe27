"""The pipeline of one output: spool, shipper, dead letters and the thread that delivers."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from powerhall.runtime.log import Log
from powerhall_agent.delivery.dead_letter import DeadLetters
from powerhall_agent.delivery.outputs.open import open_output
from powerhall_agent.delivery.shipper import Shipper
from powerhall_agent.delivery.spool import Spool
from powerhall_agent.settings.agent_settings import AgentSettings, OutputSettings

__all__ = ["OutputPipeline", "open_pipelines"]

_FAULT_PAUSE_S = 1.0


class OutputPipeline:
    """Delivers to one store in a thread of its own, so that a slow store delays nothing else."""

    def __init__(self, settings: AgentSettings, output: OutputSettings, log: Log) -> None:
        self.name, self._log = output.name, log
        folder = Path(settings.spool.path) / output.name
        store = open_output(output.url, settings.ship.timeout_s)
        self.spool = Spool(folder, settings.spool.max_bytes, settings.spool.segment_bytes, log)
        self.dead_letters = DeadLetters(folder, log)
        self.shipper = Shipper(self.spool, store, self.dead_letters, settings.ship, log, name=output.name)
        self._thread = threading.Thread(target=self._run, name=f"ship-{output.name}", daemon=True)

    def _run(self) -> None:
        """Ship until stopped; an internal error pauses the output and does not end it."""
        while not self.shipper.stopping:
            try:
                self.shipper.run()
            except Exception as error:  # noqa: BLE001 - logged and counted; the thread must outlive any answer of a store
                self.shipper.stats.retries += 1
                self._log.warning("shipper_fault", key=self.name, output=self.name, detail=repr(error))
                time.sleep(_FAULT_PAUSE_S)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def append(self, lines: bytes) -> None:
        """Spool lines and wake the shipper."""
        self.spool.append(lines)
        self.shipper.notify()

    def stop(self, deadline_s: float) -> None:
        """Let the thread deliver the live lines and end before the monotonic clock reaches `deadline_s`."""
        self.shipper.stop(deadline_s)

    def join(self, seconds: float) -> None:
        """Wait for the thread; a request that is still under way is cut."""
        if self._thread.is_alive():
            self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self.shipper.output.cut()
            self._thread.join(0.5)
        self.spool.close()


def open_pipelines(settings: AgentSettings, log: Log) -> Sequence[OutputPipeline]:
    """Open all outputs; when one is refused, those already open are closed again."""
    pipelines: list[OutputPipeline] = []
    try:
        for output in settings.output:
            pipelines.append(OutputPipeline(settings, output, log))  # noqa: PERF401 - the ones before a refused one are closed
    except BaseException:
        for pipeline in pipelines:
            pipeline.spool.close()
        raise
    return pipelines
