"""The power limits that were found on the GPUs, kept per GPU until an orderly stop puts them back.

One small file per GPU and boot, `BOOT-UUID.watts` in the folder `MEMORY.found`: writing it needs no file to be read, so
a damaged memory can neither delay the safe caps nor cost what was found. The first note of a boot stays: after a crash
the GPUs read caps, not what was found. No power limit survives a boot, and the files need not either: no fsync. Each
ends with a checksum of GPU and limit: a note that a fault changed is not believed. The capper's memory has a copy of
what was noted in this boot: where a note is lost, the GPU reads a cap, and the copy counts. A second copy of each note
lies beside the lock of the GPUs. A capper that has no note of its own reads it, so that after one with another memory
it does not find a cap.

Needs the standard library only: `powerhall-safecaps` uses it too.
"""

import contextlib
import os
import re
import stat
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["FoundLimits", "boot_id", "found_folders"]

_TOLERANCE_W: Final = 1.0


def boot_id() -> str:
    """Return the name of this boot of the host; "" where the kernel has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def found_folders(memory: Path, socket: Path) -> tuple[Path, Path]:
    """Return where found limits are kept: beside the memory, or beside the socket (on tmpfs) where that is full."""
    return memory.with_name(memory.name + ".found"), socket.with_name(socket.name + ".found")


class FoundLimits:
    """Notes of found limits in W by GPU UUID; what cannot be written is kept in this process."""

    def __init__(
        self, folders: Sequence[Path], boot: str, *, also: Sequence[Path] = (), of_gpus: Path | None = None
    ) -> None:
        """`also` are folders of a capper with other settings, as after a start with broken ones: read, not written.

        `of_gpus` is the folder of every capper of these GPUs, None where no other process can see them.
        """
        self._folders, self._of_gpus = folders, () if of_gpus is None else (of_gpus,)
        self._all = list(dict.fromkeys([*folders, *also]))
        self._boot = re.sub(r"[^A-Za-z0-9]", "", boot) or "boot"
        self._read_from = self._all if self._any_in(self._all) else [*self._all, *self._of_gpus]
        self._known: dict[str, float | None] = {}
        self._remembered_w: dict[str, float] = {}
        self._wrong: dict[str, str] = {}
        self._was_noted = False
        self.problem = ""
        """Why the latest note could not be written, or ""."""

    def note(self, uuid: str, limit_w: float) -> None:
        """Keep the limit of a GPU, unless one is kept already."""
        if uuid in self._known:
            return
        is_there, kept_w = self._read(uuid)
        self._was_noted |= any((folder / self._name(uuid)).exists() for folder in self._folders)
        self._known[uuid] = kept_w if is_there else limit_w
        if is_there and kept_w is None:
            self._wrong[uuid] = "is damaged: the GPU's default limit is put back on a stop"
        self._mend(uuid)
        if not is_there or self._known[uuid] is not None:  # also a note that another capper made
            self._write(uuid, self._known[uuid] or limit_w)

    def remember(self, limits_w: Mapping[str, float]) -> None:
        """Believe these limits, which the memory of this boot kept, before any note that is absent or another."""
        self._remembered_w = dict(limits_w)
        for uuid in [*self._known]:
            if self._mend(uuid):
                self._write(uuid, limits_w[uuid])

    def _mend(self, uuid: str) -> bool:
        limit_w, known_w = self._remembered_w.get(uuid), self._known[uuid]
        if limit_w is None or (known_w is not None and abs(known_w - limit_w) <= _TOLERANCE_W):
            return False
        self._unlink(uuid)
        self._known[uuid] = limit_w
        self._wrong[uuid] = f"was lost or changed: {limit_w:.0f} W are put back on a stop, as the memory has it"
        return True

    @property
    def known(self) -> dict[str, float]:
        """The limits in W by GPU UUID that a stop will put back, also of GPUs that do not answer now."""
        seen_w = {uuid: limit_w for uuid, limit_w in self._known.items() if limit_w is not None}
        return self._remembered_w | seen_w

    @property
    def alarms(self) -> list[str]:
        """What is wrong with the notes, one line for each text and folder."""
        texts = dict.fromkeys(self._wrong.values())
        named = {text: ", ".join(sorted(uuid for uuid, why in self._wrong.items() if why == text)) for text in texts}
        return [f"found limits: {self._folders[0]}: the note of {named[text]} {text}" for text in texts]

    def get(self, uuid: str) -> float | None:
        """Return the limit in W that was found on a GPU; None where none was noted or the note is damaged."""
        return self._known.get(uuid)

    def any_of_this_boot(self) -> bool:
        """Return whether a capper has noted limits in this boot and was not stopped in order since."""
        return self._any_in([*self._all, *self._of_gpus])

    def _any_in(self, folders: Sequence[Path]) -> bool:
        return any(path.is_file() for folder in folders for path in folder.glob(f"{self._boot}-*.watts"))

    def of_an_earlier_run(self) -> bool:
        """Return whether a capper ran before this one: its notes were there, of this boot or of an earlier one."""
        return self._was_noted or any(self._of_other_boots())

    def replace(self, uuid: str, limit_w: float) -> None:
        """Keep another limit for a GPU, from a memory of an earlier version."""
        self.forget(uuid)
        self.note(uuid, limit_w)

    def forget(self, uuid: str) -> None:
        """Drop the note of a GPU, after its limit was put back."""
        for kept in (self._known, self._wrong, self._remembered_w):
            kept.pop(uuid, None)
        self._unlink(uuid)

    def _unlink(self, uuid: str) -> None:
        for folder in [*self._all, *self._of_gpus]:
            with contextlib.suppress(OSError):
                (folder / self._name(uuid)).unlink()

    def prune(self) -> None:
        """Remove the notes of earlier boots."""
        for path in self._of_other_boots():
            with contextlib.suppress(OSError):
                path.unlink()

    def _of_other_boots(self) -> list[Path]:
        found = (path for folder in self._folders for path in folder.glob("*.watts"))
        return [path for path in found if not path.name.startswith(f"{self._boot}-")]

    def _name(self, uuid: str) -> str:
        return f"{self._boot}-{re.sub(r'[^A-Za-z0-9-]', '_', uuid)[:80]}.watts"

    def _read(self, uuid: str) -> tuple[bool, float | None]:
        """Return whether there is a note, and its limit; None where the note is damaged."""
        for folder in self._read_from:
            try:
                limit_w = _limit_w(uuid, _read_start(folder / self._name(uuid)).decode("ascii"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, UnicodeDecodeError):
                return True, None
            return True, limit_w
        return False, None

    def _write(self, uuid: str, limit_w: float) -> None:
        """Write the note into the first folder that takes it, and into that of the GPUs."""
        for folder in self._folders:
            self.problem = self._write_to(folder, uuid, limit_w)
            if not self.problem:
                break
        for folder in self._of_gpus:
            self._write_to(folder, uuid, limit_w)

    def _write_to(self, folder: Path, uuid: str, limit_w: float) -> str:
        """Write the note in one step, never over another one; return why that failed, or ""."""
        part = folder / f".{self._name(uuid)}.{os.getpid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            part.write_text(_text(uuid, limit_w), encoding="ascii")
            with contextlib.suppress(FileExistsError):
                os.link(part, folder / self._name(uuid))
        except OSError as error:
            return f"{folder}: cannot write: {error.strerror}"
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        return ""


def _text(uuid: str, limit_w: float) -> str:
    """Write a note: the limit in W, and a CRC-32 of GPU and limit."""
    watts = f"{limit_w:.3f}"
    return f"{watts} {zlib.crc32(f'{uuid} {watts}'.encode()):08x}\n"


def _limit_w(uuid: str, text: str) -> float | None:
    """Read a note, also one without a checksum, of an earlier version; None for any other text."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)(?: [0-9a-f]{8})?\n", text)
    if found is None or (" " in text and text != _text(uuid, float(found[1]))):
        return None
    return float(found[1])


def _read_start(path: Path) -> bytes:
    """Read the beginning of a plain file; never waits for a pipe or a device in its place, which raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "must be a regular file")
        return os.read(descriptor, 64)
    finally:
        os.close(descriptor)
