"""The shared state file of one simulated node: create it, open it, and set loads, limits and events of its GPUs."""

import mmap
import os
import uuid
from pathlib import Path
from typing import Final

from powerhall.runtime.errors import Rejected
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.models import GpuModel, model
from powerhall_agent.simulate.publish import describe, support_driver_fields

__all__ = ["StateFile"]

_MAKE_IT: Final = "`powerhall-agent run --simulate --state-file FILE` makes it, start the agent first"


class StateFile:
    """The mapped words of one node: `ints` and `doubles` are two views of the same memory.

    Without a path the memory is private to this process and its children.
    """

    def __init__(self, memory: mmap.mmap, path: Path | None) -> None:
        """Wrap mapped memory; use `create` or `open`."""
        self.path = path
        self._memory = memory
        whole = memoryview(memory)
        self.ints = whole.cast("q")
        self.doubles = whole.cast("d")
        self.gpus = self.ints[at.H_GPUS]

    @classmethod
    def create(
        cls,
        path: Path | None = None,
        *,
        gpus: int = 8,
        model_name: str = "H100",
        node: str = "sim",
        driver: str = "590.48.01",
        seed: int = 1,
        inlet_c: float = 28.0,
    ) -> "StateFile":
        """Make a node of idle GPUs; UUIDs and serials follow from the node's name, noise from the seed."""
        state = cls.blank(path, gpus, driver)
        for index in range(gpus):
            state.populate(index, model(model_name), node, seed, inlet_c)
        state.ints[at.H_SEED] = seed
        return state

    @classmethod
    def blank(cls, path: Path | None, gpus: int, driver: str) -> "StateFile":
        """Make a node whose GPUs answer "not supported" to everything; captures and replays fill it."""
        if not 1 <= gpus <= 64:
            raise Rejected.field("simulate", "gpus", gpus, "must be 1 to 64")
        size = at.file_bytes(gpus)
        if path is None:
            memory = mmap.mmap(-1, size)
        else:
            with path.open("w+b") as file:
                file.truncate(size)
                memory = mmap.mmap(file.fileno(), size)
        ints = memoryview(memory).cast("q")
        ints[at.H_VERSION], ints[at.H_GPUS], ints[at.H_GPU_WORDS] = at.VERSION, gpus, at.GPU_WORDS
        ints[at.H_GENERATION] = 1
        state = cls(memory, path)
        state.set_driver_version(driver)
        for index in range(gpus):
            base = state.base(index)
            for name in at.GETTERS:
                ints[base + at.getter_word(name)] = at.NOT_SUPPORTED
            for slot in range(at.FIELD_SLOTS):
                ints[base + at.F_BASE + at.F_WORDS * slot] = at.NOT_SUPPORTED
        ints[at.H_MAGIC] = at.MAGIC
        return state

    @classmethod
    def open(cls, path: Path) -> "StateFile":
        """Map an existing file; a file of another kind or version raises Rejected."""
        try:
            with path.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                if size < 8 * at.HEADER_WORDS:
                    raise Rejected.field(str(path), "size", size, "must be a state file of simulated GPUs")
                memory = mmap.mmap(file.fileno(), size)
        except FileNotFoundError as error:
            raise Rejected(f"{path}: is not there: {_MAKE_IT}") from error
        except OSError as error:
            raise Rejected(f"{path}: cannot be opened: {error.strerror}") from error
        state = cls(memory, path)
        if state.ints[at.H_MAGIC] != at.MAGIC or size < at.file_bytes(state.gpus):
            raise Rejected.field(
                str(path), "magic", hex(state.ints[at.H_MAGIC]), "must be a state file of simulated GPUs"
            )
        if state.ints[at.H_VERSION] != at.VERSION:
            raise Rejected.field(str(path), "version", state.ints[at.H_VERSION], f"must be {at.VERSION}")
        return state

    def base(self, gpu: int) -> int:
        """Return the first word of a GPU; an index outside the node raises Rejected."""
        if not 0 <= gpu < self.gpus:
            raise Rejected.field("simulate", "gpu", gpu, f"must be 0 to {self.gpus - 1}")
        return at.HEADER_WORDS + at.GPU_WORDS * gpu

    def text(self, gpu: int, place: tuple[int, int]) -> str:
        """Read a text of a GPU."""
        return self._text(self.base(gpu), place)

    @property
    def driver_version(self) -> str:
        """The driver version that readers see."""
        return self._text(0, (at.H_DRIVER_VERSION, at.DRIVER_VERSION_WORDS))

    def set_driver_version(self, version: str) -> None:
        """Change the driver version, as an upgrade does."""
        self._set_text(0, (at.H_DRIVER_VERSION, at.DRIVER_VERSION_WORDS), version)

    def set_text(self, gpu: int, place: tuple[int, int], value: str) -> None:
        """Write a text of a GPU, cut to its room."""
        self._set_text(self.base(gpu), place, value)

    def set_load(self, gpu: int, util: float, mem_used_bytes: float | None = None) -> None:
        """Set the utilization (0 to 1) that the GPU's work asks for, and the memory that it holds."""
        base = self.base(gpu)
        self.doubles[base + at.C_UTIL] = min(1.0, max(0.0, util))
        if mem_used_bytes is not None:
            self.doubles[base + at.C_MEM_USED] = mem_used_bytes

    def set_limit(self, gpu: int, limit_w: float) -> None:
        """Set the requested power limit, clamped to what the GPU accepts."""
        base, d = self.base(gpu), self.doubles
        d[base + at.C_LIMIT_W] = min(d[base + at.C_LIMIT_MAX_W], max(d[base + at.C_LIMIT_MIN_W], limit_w))

    def power_w(self, gpu: int) -> float:
        """Return the power that the GPU draws now."""
        return self.doubles[self.base(gpu) + at.C_POWER_W]

    def energy_j(self, gpu: int) -> float:
        """Return the energy that the GPU took since the file was made."""
        return self.doubles[self.base(gpu) + at.C_ENERGY_MJ] / 1000.0

    def set_processes(self, gpu: int, processes: list[tuple[int, int]]) -> None:
        """List (pid, bytes) of the processes that use the GPU."""
        base = self.base(gpu)
        for row, (pid, used) in enumerate(processes[: at.P_MAX]):
            word = base + at.P_BASE + at.P_WORDS * row
            self.ints[word], self.ints[word + 1] = pid, used
        self.ints[base + at.P_COUNT] = min(len(processes), at.P_MAX)

    def set_mig(self, gpu: int, instances: list[tuple[int, int, int, float]]) -> None:
        """Partition the GPU into (GPU instance id, total bytes, used bytes, activity 0..1); none: turn MIG off."""
        base = self.base(gpu)
        for row, (instance, total, used, activity) in enumerate(instances[: at.M_MAX]):
            word = base + at.M_BASE + at.M_WORDS * row
            self.ints[word], self.ints[word + 1], self.ints[word + 2] = instance, total, used
            self.doubles[word + 3] = activity
        self.ints[base + at.M_COUNT] = min(len(instances), at.M_MAX)
        word = base + at.getter_word("MIG_MODE")
        self.ints[word + 1] = self.ints[word + 2] = int(bool(instances))
        self.ints[base + at.getter_word("UTILIZATION")] = at.NOT_SUPPORTED if instances else 0

    def post_event(self, gpu: int, kind: int, data: int = 0, instance: int = 0xFFFFFFFF) -> None:
        """Append an event; GPU -1 makes it a system event (driver bind or unbind)."""
        head = self.ints[at.H_EVENT_HEAD]
        word = at.H_EVENTS + at.EVENT_WORDS * (head % at.EVENT_SLOTS)
        self.ints[word], self.ints[word + 1] = gpu, kind
        self.ints[word + 2], self.ints[word + 3] = data, instance
        self.ints[at.H_EVENT_HEAD] = head + 1

    def populate(self, index: int, spec: GpuModel, node: str, seed: int, inlet_c: float) -> None:
        """Make GPU `index` an idle one of this model."""
        describe(self.ints, self.doubles, self.base(index), spec, inlet_c)
        support_driver_fields(self.ints, self.base(index), self.driver_version)
        name = uuid.uuid5(uuid.NAMESPACE_DNS, f"{node}/{index}")
        self.set_text(index, at.T_UUID, f"GPU-{name}")
        self.set_text(index, at.T_NAME, spec.name)
        self.set_text(index, at.T_SERIAL, str(name.int % 10**13).zfill(13))
        self.set_text(index, at.T_BUS_ID, f"00000000:{0x10 + 8 * index:02X}:00.0")
        self.set_text(index, at.T_VBIOS, "96.00.A5.00.01")
        self.ints[self.base(index) + at.C_RNG] = (seed * 1000003 + index * 7919 + 1) & 0x7FFFFFFF

    def _text(self, base: int, place: tuple[int, int]) -> str:
        start = 8 * (base + place[0])
        return self._memory[start : start + 8 * place[1]].split(b"\0", 1)[0].decode("utf-8", "replace")

    def _set_text(self, base: int, place: tuple[int, int], value: str) -> None:
        room = 8 * place[1]
        start = 8 * (base + place[0])
        self._memory[start : start + room] = value.encode()[: room - 1].ljust(room, b"\0")
