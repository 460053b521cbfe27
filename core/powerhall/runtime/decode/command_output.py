"""Output of other programs: as text, with a limit of bytes and a time."""

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from powerhall.runtime.decode.limits import MOST_COMMAND_BYTES, enlarged, size_text
from powerhall.runtime.errors import Rejected, Retryable

__all__ = ["CommandOutput", "command_output"]

_CHUNK = 1 << 16
_MOST_ERROR_BYTES = 1 << 20
"""Of stderr so much is kept."""


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """What a program wrote, and its exit status; `stderr` has no bytes that are not UTF-8."""

    returncode: int
    stdout: bytes
    stderr: str


def command_output(
    command: Sequence[str],
    timeout_s: float,
    *,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
    most_bytes: int = MOST_COMMAND_BYTES,
) -> CommandOutput:
    """Run a program to its end; one that takes longer or writes more is killed.

    Raises Retryable after the time, Rejected beyond the limit, and FileNotFoundError without the program.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    end_s = time.monotonic() + timeout_s
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as out, process.stderr as err:
        try:
            stdout, stderr = _read(out, err, end_s, command[0], enlarged(most_bytes))
            process.wait(max(0.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Retryable(f"{command[0]}: no answer within {timeout_s:g} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return CommandOutput(process.returncode, bytes(stdout), stderr.decode("utf-8", "replace"))


def _read(out: IO[bytes], err: IO[bytes], end_s: float, name: str, most_bytes: int) -> tuple[bytearray, bytearray]:
    found = {out.fileno(): bytearray(), err.fileno(): bytearray()}
    with selectors.DefaultSelector() as ready:
        for stream in (out, err):
            ready.register(stream, selectors.EVENT_READ)
        while ready.get_map():
            left_s = end_s - time.monotonic()
            events = ready.select(left_s) if left_s > 0 else []
            if not events:
                raise subprocess.TimeoutExpired(name, 0.0)
            for key, _ in events:
                part = os.read(key.fd, _CHUNK)
                if not part:
                    ready.unregister(key.fileobj)
                elif key.fd == out.fileno() or len(found[key.fd]) < _MOST_ERROR_BYTES:
                    found[key.fd] += part
            if len(found[out.fileno()]) > most_bytes:
                raise Rejected(f"{name}: writes more than {size_text(most_bytes)}, the most that is read")
    return found[out.fileno()], found[err.fileno()]
