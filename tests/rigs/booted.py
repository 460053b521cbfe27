"""A systemd that is booted as process 1 of namespaces of its own, over a throw-away copy of this machine's files.

Mounts, processes, users, IPC, host name and control groups are its own; the network is this machine's, so that
services reach a store on loopback. Writes go to an overlay in memory, which ends with the machine. Needs root,
unshare, overlayfs, cgroup v2 and systemd; `missing` says what is absent.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SYSTEMD = Path("/usr/lib/systemd/systemd")
PYTHON = "/opt/python"
"""Where the machine sees this Python, which may lie in a home folder that services cannot see, with its own library."""
LIBRARIES = "/opt/libraries"
"""Where it sees this environment's libraries, without this checkout: .pth files of the folder are not followed."""
_QUIET = (
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
)
"""Units of this machine that would touch the kernel that it shares."""
_BOOT = """
set -e
mount -t tmpfs -o mode=755 tmpfs {folder}
mkdir {folder}/upper {folder}/work {folder}/root
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {folder}/root
cd {folder}/root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
: >etc/fstab
rm -rf etc/systemd/system
mkdir -p etc/systemd/system .{python} .{libraries}
for unit in {quiet}; do ln -s /dev/null etc/systemd/system/$unit; done
mkdir -p etc/systemd/system.conf.d
printf '[Manager]\\nDefaultEnvironment=LD_LIBRARY_PATH={python}/lib\\n' >etc/systemd/system.conf.d/python.conf
printf '[Unit]\\nRequires=sysinit.target\\nAllowIsolate=yes\\n' >etc/systemd/system/trial.target
mount --bind {base} .{python}
mount --bind {site} .{libraries}
mkdir old
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=powerhall PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
  {systemd} --unit=trial.target --log-target=journal --show-status=no
"""


def missing() -> str:
    """Say what this machine lacks; "" when `boot` can work."""
    if os.geteuid() != 0:
        return "needs root to boot a systemd in namespaces"
    absent = [
        name for name in ("unshare", "nsenter", "pivot_root", "systemctl", "setpriv") if shutil.which(name) is None
    ]
    if absent or not SYSTEMD.exists():
        return f"needs {', '.join(absent) or SYSTEMD}"
    if _cgroup2() is None:
        return "needs a mounted cgroup v2"
    probe = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--ipc", "--uts", "sh", "-c"]
    script = (
        'd=$(mktemp -d) && mount -t tmpfs t "$d" && mkdir "$d/u" "$d/w" "$d/r" && '
        'mount -t overlay o -o "lowerdir=/,upperdir=$d/u,workdir=$d/w" "$d/r"; '
        'e=$?; umount -R "$d"; rmdir "$d"; exit $e'
    )
    done = subprocess.run([*probe, script], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no namespaces or overlays here: {done.stderr.strip()}"


def _cgroup2() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2" and "rw" in before.split()[5].split(","):
            return Path(before.split()[4])
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted machine; `pid` is its process 1, as this machine numbers it."""

    pid: int

    @property
    def root(self) -> Path:
        """Its root folder, seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, *command: object, user: str = "", check: bool = True, text: str = "") -> subprocess.CompletedProcess:
        """Run a command inside, as a user with that user's own groups alone."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-p", "-C", "-r", "-w"]
        inside += ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", f"LD_LIBRARY_PATH={PYTHON}/lib"]
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--inh-caps=-all"] if user else []
        done = subprocess.run(
            [*inside, *as_user, *map(str, command)],
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file as root."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def show(self, unit: str, what: str) -> str:
        """Return a property of a unit, such as ActiveState."""
        return self.run("systemctl", "show", "--value", "-p", what, unit).stdout.strip()

    def main_pid(self, unit: str) -> int:
        """Return a service's main process, as this machine numbers it."""
        inner = self.show(unit, "MainPID")
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
                numbers = lines.get("NSpid", "").split()
                if len(numbers) == 2 and numbers[1] == inner and self._is_mine(int(numbers[0])):
                    return int(numbers[0])
        raise AssertionError(f"{unit}: no process {inner}\n{self.journal(unit)}")

    def _is_mine(self, pid: int) -> bool:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{self.pid}/ns/pid")

    def journal(self, *units: str) -> str:
        """Return the last lines of the journal of some units, for the message of a failed test."""
        words = [word for unit in units for word in ("-u", unit)]
        done = self.run("journalctl", "--no-pager", "-q", "-n", "60", "-o", "short-monotonic", *words, check=False)
        return done.stdout + done.stderr


@contextmanager
def boot() -> Iterator[Machine]:
    """Boot a machine and wait until its services can be started; everything of it ends with the block."""
    above = _cgroup2()
    assert above is not None, missing()
    group = above / f"powerhall-trial-{os.getpid()}"
    group.mkdir()
    folder = tempfile.mkdtemp(prefix="powerhall-booted-")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    script = _BOOT.format(
        folder=folder,
        python=PYTHON,
        libraries=LIBRARIES,
        base=sys.base_prefix,
        site=site,
        systemd=SYSTEMD,
        quiet=" ".join(_QUIET),
    )
    enter = (
        f"echo $$ >{group}/cgroup.procs && exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup sh -c "
    )
    outer = subprocess.Popen(["sh", "-c", enter + '"$0"', script], stderr=subprocess.PIPE)
    try:
        machine = Machine(_first_child(outer))
        _wait_up(machine, outer)
        yield machine
    finally:
        outer.kill()
        outer.wait(20)
        outer.stderr.close()
        _remove(group)
        os.rmdir(folder)


def _first_child(outer: subprocess.Popen) -> int:
    deadline = time.monotonic() + 10
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    while not (found := children.read_text().split()):
        assert outer.poll() is None, outer.stderr.read().decode()
        assert time.monotonic() < deadline, "unshare started nothing"
        time.sleep(0.02)
    return int(found[0])


def _wait_up(machine: Machine, outer: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert outer.poll() is None, outer.stderr.read().decode()
        if Path(f"/proc/{machine.pid}/comm").read_text().strip() == "systemd":
            state = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in ("running", "degraded"):
                return
        assert time.monotonic() < deadline, "systemd did not come up within 60 s"
        time.sleep(0.1)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 10
    while group.exists():
        for inner in sorted(group.rglob("*"), key=lambda path: -len(path.parts)):
            if inner.is_dir():
                with contextlib.suppress(OSError):
                    inner.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
        assert time.monotonic() < deadline, f"{group}: processes are left"
        time.sleep(0.05)
