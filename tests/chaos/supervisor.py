"""Plays systemd for one episode: starts services as their units say, and starts again what dies.

Of a unit are kept: User, Group, SupplementaryGroups and DynamicUser, CapabilityBoundingSet, UMask, Type=notify,
WatchdogSec with its signal, Restart with RestartSec, TimeoutStopSec, ExecStopPost and MemoryMax. The sandbox of name
spaces and system calls is not played.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_UNITS = (ROOT / "deploy" / "systemd", *(ROOT / part for part in ("core", "agent", "optimizer")))
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, None: 1.0, "min": 60.0, "h": 3600.0}
_SIZE = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Unit:
    """What the supervisor keeps of a unit file."""

    name: str
    keys: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, name: str) -> "Unit":
        """Read the shipped unit of this name."""
        path = next(found for folder in _UNITS for found in sorted(folder.rglob(f"{name}.service")))
        keys: dict[str, tuple[str, ...]] = {}
        for line in path.read_text().replace("\\\n", " ").splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                keys[key.strip()] = (*keys.get(key.strip(), ()), value.strip())
        return cls(name, keys)

    def text(self, key: str, default: str = "") -> str:
        return self.keys.get(key, (default,))[-1]

    def seconds(self, key: str, default: float) -> float:
        found = _SPAN.fullmatch(self.text(key))
        return float(found[1]) * _SECONDS[found[2]] if found else default

    @property
    def memory_bytes(self) -> int:
        text = self.text("MemoryMax", "256M")
        return int(text[:-1]) * _SIZE[text[-1]]

    @property
    def user(self) -> str:
        return self.text("User", self.name if self.text("DynamicUser") == "yes" else "root")

    @property
    def group(self) -> str:
        return self.text("Group", self.user)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(word for text in self.keys.get("SupplementaryGroups", ()) for word in text.split())

    def prefix(self, ids: Mapping[str, int]) -> list[str]:
        """Return the command that becomes the unit's user with the unit's capabilities; `ids` of users and groups."""
        if not ids:
            return []
        keep = [word.lower().removeprefix("cap_") for word in self.text("CapabilityBoundingSet").split()]
        bounding = ",".join(["-all", *(f"+{word}" for word in keep)])
        command = ["setpriv", f"--reuid={ids[self.user]}", f"--regid={ids[self.group]}", "--no-new-privs"]
        groups = ",".join(str(ids[name]) for name in self.groups)
        command += [f"--groups={groups}" if groups else "--clear-groups"]
        return [*command, f"--bounding-set={bounding}", "--inh-caps=-all", "--"]


@dataclass
class Death:
    """An end of a service: when, how, and whether the harness had killed it."""

    time_s: float
    service: str
    code: int
    asked: bool


@dataclass
class Service:
    """A service under the supervisor. `killed` says that the harness itself ends the present process."""

    unit: Unit
    name: str
    command: list[str]
    folder: Path
    log: Path
    ids: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    stop_post: list[list[str]] = field(default_factory=list)
    enter: list[str] = field(default_factory=list)
    """Front of the command that enters the machine's own name space of mounts."""
    deaths: list[Death] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    post: list[subprocess.Popen[bytes]] = field(default_factory=list)
    killed: bool = False
    is_wanted: bool = True
    is_ready: bool = False
    started_s: float = 0.0
    begun_s: float = 0.0
    """When the first process was started."""
    most_bytes: int = 0
    pids: set[int] = field(default_factory=set)
    _alive_s: float = 0.0
    _again_s: float = 0.0
    _posts: list[list[str]] = field(default_factory=list)
    _socket: socket.socket | None = None

    def start(self) -> None:
        """Start the process, with a notify socket where the unit has one."""
        self._listen()
        self.is_ready, self.killed = self.unit.text("Type") != "notify", False
        self.process = self._spawn(self.command)
        self.pids.add(self.process.pid)
        self.started_s = self._alive_s = time.monotonic()
        self.begun_s = self.begun_s or self.started_s

    def _listen(self) -> None:
        path = self.folder / f"{self.name}.notify"
        if self._socket is None and self.unit.text("Type") == "notify":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind(str(path))
            path.chmod(0o666)

    def _spawn(self, command: Sequence[str], **more: str) -> subprocess.Popen[bytes]:
        env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", **self.env, **more}
        if self._socket is not None:
            env["NOTIFY_SOCKET"] = str(self.folder / f"{self.name}.notify")
            env["WATCHDOG_USEC"] = str(int(self.unit.seconds("WatchdogSec", 0.0) * 1e6))
        umask = int(self.unit.text("UMask", "0022"), 8)
        command = [*self.enter, *self.unit.prefix(self.ids), *command]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=env, umask=umask, cwd="/", start_new_session=True
            )

    def signal(self, number: int) -> None:
        """Send a signal as the fault; an end that follows a kill is the harness's."""
        if self.process is not None and self.process.poll() is None:
            self.killed |= number in {signal.SIGKILL, signal.SIGTERM}
            self.process.send_signal(number)

    def poll(self) -> None:
        """Do what systemd would do now."""
        now_s = time.monotonic()
        self._hear(now_s)
        if self.process is not None and self.process.poll() is not None:
            self._died(now_s)
        self._run_posts()
        watchdog_s = self.unit.seconds("WatchdogSec", 0.0)
        if self.process is not None and self.is_ready and watchdog_s and now_s - self._alive_s > watchdog_s:
            self.signal(signal.SIGKILL)
        if self.process is None and not self.post and not self._posts and self.is_wanted and now_s >= self._again_s:
            self.start()

    def _hear(self, now_s: float) -> None:
        while self._socket is not None:
            try:
                words = self._socket.recv(4096)
            except BlockingIOError:
                return
            self._alive_s = now_s
            self.is_ready |= b"READY=1" in words

    def _died(self, now_s: float) -> None:
        assert self.process is not None
        code = self.process.returncode
        with contextlib.suppress(ProcessLookupError):  # as systemd ends what is left of the service
            os.killpg(self.process.pid, signal.SIGKILL)
        self.deaths.append(Death(now_s, self.name, code, self.killed or not self.is_wanted))
        self.process, self.is_ready = None, False
        self._again_s = now_s + self.unit.seconds("RestartSec", 0.1)
        self._posts = list(self.stop_post)
        self._how = {
            "SERVICE_RESULT": "success" if code == 0 else ("signal" if code < 0 else "exit-code"),
            "EXIT_CODE": "killed" if code < 0 else "exited",
            "EXIT_STATUS": signal.Signals(-code).name.removeprefix("SIG") if code < 0 else str(code),
        }

    def _run_posts(self) -> None:
        self.post = [process for process in self.post if process.poll() is None]
        if self._posts and not self.post:
            self.post = [self._spawn(self._posts.pop(0), **self._how)]

    def stop(self) -> None:
        """Stop in order: SIGTERM; `poll` goes on until `is_stopped`."""
        self.is_wanted = False
        self._stop_s = time.monotonic()
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)

    @property
    def is_stopped(self) -> bool:
        if self.process is not None and time.monotonic() - self._stop_s > self.unit.seconds("TimeoutStopSec", 90.0):
            self.process.kill()
        return self.process is None and not self.post and not self._posts

    def measure(self) -> None:
        """Keep the most memory that any process of the service had."""
        if self.process is not None:
            self.most_bytes = max(self.most_bytes, sum(_most_bytes(pid) for pid in tree(self.process.pid)))


def tree(pid: int) -> list[int]:
    """Return the process and its children."""
    try:
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return [pid]


def _most_bytes(pid: int) -> int:
    """Return the most that the process had of its own; what it shares with others, such as libraries, is left out."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = {key: int(kib) * 1024 for key, kib in re.findall(r"(VmHWM|RssFile|RssShmem):\s+(\d+) kB", text)}
    return found.get("VmHWM", 0) - found.get("RssFile", 0) - found.get("RssShmem", 0)


def shipped(unit: Unit, key: str, change: Callable[[str], str]) -> list[list[str]]:
    """Return the commands of a key of the unit, with paths changed to those of the episode."""
    return [shlex.split(change(text.lstrip("+-!@:"))) for text in unit.keys.get(key, ()) if text]
