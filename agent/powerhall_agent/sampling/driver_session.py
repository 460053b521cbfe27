"""One loaded driver generation: the GPUs that are read, those that could not be opened, and what is due when."""

import functools
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pynvml

from powerhall.runtime.log import Log
from powerhall_agent.base.clock import Moment
from powerhall_agent.base.encoder import Series
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.sampling.driver_events import EventWatch
from powerhall_agent.sampling.driver_thread import Task
from powerhall_agent.sampling.gpu_health import Health
from powerhall_agent.sampling.gpu_reader import FAST, FULL, IDENTITY, SLOW, GpuTrack, TrackContext
from powerhall_agent.sampling.sampler_settings import SamplerSettings

__all__ = ["Generation", "boot_id", "next_due"]

_log = Log(quiet=True)


class Generation:
    """Everything that lives from one `nvmlInit` to the next; made and freed on a driver thread."""

    def __init__(self, settings: SamplerSettings, context: TrackContext, now_ns: int) -> None:
        """Open the driver and bind to its GPUs; raises NVMLError when the driver is not there."""
        self._settings, self._context = settings, context
        self.driver = Driver(settings.first_gpu, settings.gpu_count)
        self.tracks = [GpuTrack(self.driver, gpu, context) for gpu in self.driver.gpus]
        self.missing: dict[int, Health] = {}
        for index, code in self.driver.unopened.items():
            health = Health(strikes=2)
            health.fault(code, now_ns)
            self.missing[index] = health
        self.watch = EventWatch(self.driver, self.driver.gpus)
        self._found: deque[GpuTrack] = deque()
        self._series: dict[int, Series] = {}
        self.fast_tasks: Sequence[Task] = ()
        self.full_tasks: Sequence[Task] = ()
        """The fast set of every GPU; the fast and the full set."""
        self.quiet_until_ns = 0
        """Until then these are all that is due, as long as no GPU fails and nothing else happens."""
        _log.info(
            "driver_bound",
            version=self.driver.version,
            gpus=len(self.tracks),
            unopened=len(self.missing),
            events=self.watch.watched,
        )

    def tasks(self, moment: Moment, *, full: bool) -> Sequence[Task]:
        """Return what is to be read of each GPU now."""
        tasks = [task for track in self.tracks if (task := self._task(track, moment, full=full)) is not None]
        for index, health in self.missing.items():
            if health.due(moment.mono_ns):
                tasks.append(Task(index, functools.partial(self._open_missing, index, moment)))
        return tasks

    def rest(self) -> None:
        """Find out until when nothing but the fast set is due of any GPU, if all are well."""
        if len(self.fast_tasks) != len(self.tracks):
            self.fast_tasks = [Task(track.gpu.index, track.poll_fast) for track in self.tracks]
            self.full_tasks = [Task(track.gpu.index, track.poll_full) for track in self.tracks]
        well = not self.missing and all(track.health.up for track in self.tracks)
        self.quiet_until_ns = min((track.next_due_ns for track in self.tracks), default=0) if well else 0

    def _task(self, track: GpuTrack, moment: Moment, *, full: bool) -> Task | None:
        if not track.health.up:
            due = track.health.due(moment.mono_ns)
            return Task(track.gpu.index, functools.partial(track.retry, moment)) if due else None
        first = not track.due_ns
        kinds = self._slow_kinds(track, moment) if moment.mono_ns >= track.next_due_ns else FAST
        if full and not first:  # the first interval of a GPU has only just begun
            kinds |= FULL
        return Task(track.gpu.index, track.poll_fast if kinds == FAST else functools.partial(track.poll, moment, kinds))

    def _slow_kinds(self, track: GpuTrack, moment: Moment) -> int:
        """Return what is due of a GPU besides the full set; the slow set of each GPU has a tick of its own."""
        kinds, due, settings = FAST, track.due_ns, self._settings
        for kind, seconds, shift_s in (
            (SLOW, settings.slow_interval_s, track.gpu.index * settings.fast_interval_s),
            (IDENTITY, settings.identity_interval_s, 0.0),
        ):
            if kind not in due:
                due[kind] = moment.mono_ns + int(shift_s * 1e9)
            if moment.mono_ns >= due[kind]:
                due[kind] = next_due(due[kind], moment.mono_ns, seconds)
                kinds |= kind
        track.next_due_ns = min(due.values())
        return kinds

    def hurry(self, track: GpuTrack, moment: Moment, *kinds: int) -> None:
        """Make slow sets of a GPU due now."""
        track.due_ns.update(dict.fromkeys(kinds, moment.mono_ns))
        track.next_due_ns = self.quiet_until_ns = 0

    def _open_missing(self, index: int, moment: Moment) -> None:
        try:
            gpu = self.driver.open(index)
        except pynvml.NVMLError as error:
            self.missing[index].fault(error.value, moment.mono_ns)
            return
        track = GpuTrack(self.driver, gpu, self._context)
        track.event("gpu_recovered", 0, "the GPU answers now", 0, moment.ms)
        self._found.append(track)

    def adopt(self) -> None:
        """Take in GPUs that have appeared since."""
        while self._found:
            track = self._found.popleft()
            self.missing.pop(track.gpu.index, None)
            self.tracks.append(track)
            self.watch.register(track.gpu)

    def dead_code(self) -> int:
        """Return the code that says the whole generation is gone, 0 while it is alive."""
        return next((track.dead_code for track in self.tracks if track.dead_code), 0)

    def series(self, index: int) -> Series:
        """Return the series of a GPU's state."""
        found = self._series.get(index)
        if found is None:
            found = self._series[index] = Series("gpu_state", {**self._context.tags, "gpu": str(index)})
        return found

    def free(self) -> None:
        """Free what the driver holds; the event thread must have ended."""
        for track in self.tracks:
            track.free_mig()
        self.driver.close()


def next_due(due_ns: int, now_ns: int, seconds: float) -> int:
    """Return the next due time on the same grid, after now; a grid that has not begun begins now."""
    step_ns = int(seconds * 1e9)
    if due_ns == 0:
        return now_ns + step_ns
    return due_ns + step_ns * (1 + max(0, now_ns - due_ns) // step_ns)


def boot_id() -> int:
    """Return a number that names this boot of the host; 0 where the kernel does not say."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.replace("-", "")[:15], 16)
