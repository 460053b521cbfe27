"""One loaded driver session: the GPUs that are read, those that could not be opened, and the due times of readings."""

import functools
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pynvml

from powerhall.runtime.log import Log
from powerhall_agent.base.clock import Moment
from powerhall_agent.base.encoder import Series
from powerhall_agent.nvml.codes import UNKNOWN
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.sampling.driver_events import EventWatch
from powerhall_agent.sampling.driver_thread import Task
from powerhall_agent.sampling.gpu_health import HUNG, GpuHealth
from powerhall_agent.sampling.gpu_reader import FAST, FULL, IDENTITY, SLOW, GpuReader, ReaderContext
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["DriverSession", "boot_id", "next_due"]

_log = Log(quiet=True)


class DriverSession:
    """The state from one `nvmlInit` to the next; made and freed on the driver thread."""

    def __init__(self, settings: SamplerSettings, context: ReaderContext, now_ns: int) -> None:
        """Open the driver and bind to its GPUs; raises NVMLError when the driver is not there."""
        self._settings, self._context = settings, context
        self.driver = Driver(settings.first_gpu, settings.gpu_count)
        self.readers: list[GpuReader] = []
        for gpu in self.driver.gpus:
            try:
                self.readers.append(GpuReader(self.driver, gpu, context))
            except Exception:  # noqa: BLE001 - one GPU; it is tried again as one that could not be opened
                self.driver.unopened[gpu.index] = UNKNOWN
                _log.exception("gpu_not_opened", gpu=gpu.index)
        self.missing: dict[int, GpuHealth] = {}
        for index, code in self.driver.unopened.items():
            health = GpuHealth(strikes=2)
            if code is None:
                health.quarantine(HUNG, now_ns)
            else:
                health.fault(code, now_ns)
            self.missing[index] = health
        self.watch = EventWatch(self.driver, [reader.gpu for reader in self.readers])
        self._found: deque[GpuReader] = deque()
        self._series: dict[int, Series] = {}
        self.fast_tasks: Sequence[Task] = ()
        self.full_tasks: Sequence[Task] = ()
        """The tasks that read the fast set of every GPU, and those that read the full set as well."""
        self.quiet_until_ns = 0
        """Until then nothing else is due, unless a GPU fails or the driver reports an event."""
        _log.info(
            "driver_bound",
            version=self.driver.version,
            gpus=len(self.readers),
            unopened=len(self.missing),
            events=self.watch.watched,
        )

    def tasks(self, moment: Moment, *, full: bool) -> Sequence[Task]:
        """Return the readings that are due now."""
        tasks = [task for reader in self.readers if (task := self._task(reader, moment, full=full)) is not None]
        for index, health in self.missing.items():
            if health.due(moment.mono_ns):
                tasks.append(Task(index, functools.partial(self._open_missing, index, moment)))
        return tasks

    def rest(self) -> None:
        """Compute until when only the fast set is due, if all GPUs answer."""
        if len(self.fast_tasks) != len(self.readers):
            self.fast_tasks = [Task(reader.gpu.index, reader.poll_fast) for reader in self.readers]
            self.full_tasks = [Task(reader.gpu.index, reader.poll_full) for reader in self.readers]
        well = not self.missing and all(reader.health.up for reader in self.readers)
        self.quiet_until_ns = min((reader.next_due_ns for reader in self.readers), default=0) if well else 0

    def _task(self, reader: GpuReader, moment: Moment, *, full: bool) -> Task | None:
        if not reader.health.up:
            due = reader.health.due(moment.mono_ns)
            return Task(reader.gpu.index, functools.partial(reader.retry, moment)) if due else None
        first = not reader.due_ns
        kinds = self._slow_kinds(reader, moment) if moment.mono_ns >= reader.next_due_ns else FAST
        if full and not first:  # the first interval of a GPU is not complete yet
            kinds |= FULL
        return Task(
            reader.gpu.index, reader.poll_fast if kinds == FAST else functools.partial(reader.poll, moment, kinds)
        )

    def _slow_kinds(self, reader: GpuReader, moment: Moment) -> int:
        """Return which sets besides the full one are due; each GPU reads its slow set at a different tick."""
        kinds, due, settings = FAST, reader.due_ns, self._settings
        for kind, seconds, shift_s in (
            (SLOW, settings.slow_interval_s, reader.gpu.index * settings.fast_interval_s),
            (IDENTITY, settings.identity_interval_s, 0.0),
        ):
            if kind not in due:
                due[kind] = moment.mono_ns + int(shift_s * 1e9)
            if moment.mono_ns >= due[kind]:
                due[kind] = next_due(due[kind], moment.mono_ns, seconds)
                kinds |= kind
        reader.next_due_ns = min(due.values())
        return kinds

    def hurry(self, reader: GpuReader, moment: Moment, *kinds: int) -> None:
        """Make slow sets of a GPU due now."""
        reader.due_ns.update(dict.fromkeys(kinds, moment.mono_ns))
        reader.next_due_ns = self.quiet_until_ns = 0

    def _open_missing(self, index: int, moment: Moment) -> None:
        try:
            reader = GpuReader(self.driver, self.driver.open(index), self._context)
        except pynvml.NVMLError as error:
            self.missing[index].fault(error.value, moment.mono_ns)
            return
        except Exception:
            self.missing[index].fault(UNKNOWN, moment.mono_ns)
            raise
        reader.event("gpu_recovered", 0, "the GPU answers now", 0, moment.ms)
        self._found.append(reader)

    def adopt(self) -> None:
        """Add GPUs that have been opened since."""
        while self._found:
            reader = self._found.popleft()
            self.missing.pop(reader.gpu.index, None)
            self.readers.append(reader)
            self.watch.register(reader.gpu)

    def dead_code(self) -> int:
        """Return the code that ended the session, 0 while it is open."""
        return next((reader.dead_code for reader in self.readers if reader.dead_code), 0)

    def series(self, index: int) -> Series:
        """Return the series of a GPU's state."""
        found = self._series.get(index)
        if found is None:
            found = self._series[index] = Series("gpu_state", {**self._context.tags, "gpu": str(index)})
        return found

    def free(self) -> None:
        """Free the driver's resources; the event thread must have ended."""
        for reader in self.readers:
            reader.free()
        self.driver.close()


def next_due(due_ns: int, now_ns: int, seconds: float) -> int:
    """Return the next due time after now on the same grid; a grid that has not begun begins now."""
    step_ns = int(seconds * 1e9)
    if due_ns == 0:
        return now_ns + step_ns
    return due_ns + step_ns * (1 + max(0, now_ns - due_ns) // step_ns)


def boot_id() -> int:
    """Return a number that names this boot of the host; 0 where the kernel has none."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.replace("-", "")[:15], 16)
