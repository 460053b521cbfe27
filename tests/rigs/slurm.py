"""A real Slurm cluster on loopback: slurmctld and one slurmd per simulated node, started once per test run.

The programs are Debian's (22.05 on bookworm), or those in the folder $POWERHALL_SLURM_BIN
(tests/optimizer/schedulers/slurm24.sh puts 24.11 there, slurm26.sh 26.05). A node is a process configured with
64 cores and 8 GPUs; jobs are real processes that sleep.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = ("slurmctld", "slurmd", "squeue", "sinfo", "scontrol", "sbatch", "scancel")
_PORTS = range(21400, 21800)
_DEADLINE_S = 40.0
_SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "slurm"

_CONF = """\
ClusterName=powerhall
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
{auth}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
JobSubmitPlugins=lua
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,bf_licenses,batch_sched_delay=0,default_queue_depth=1000
PriorityType=priority/basic
SlurmdParameters=config_overrides
GresTypes=gpu
Licenses={licences}
MinJobAge=300
InactiveLimit=0
KillWait=1
MessageTimeout=10
SlurmctldTimeout=60
SlurmdTimeout=60
TaskProlog={folder}/task_prolog
SuspendProgram={folder}/suspend
ResumeProgram={folder}/resume
SuspendTime=86400
SuspendTimeout=4
ResumeTimeout=30
SlurmctldDebug=info
SlurmdDebug=info
NodeName=gn[01-{last:02d}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{end}] CPUs=64 Boards=1 \
SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=1000000 Gres=gpu:h200:8 Feature=hall1 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""

_SUSPEND = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin SLURM_CONF={folder}/slurm.conf
for node in $(scontrol show hostnames "$1"); do
  echo "suspend $node" >>{folder}/log/power
  kill -9 "$(cat {folder}/run/slurmd.$node.pid)"
done
"""
_RESUME = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin SLURM_CONF={folder}/slurm.conf
for node in $(scontrol show hostnames "$1"); do
  echo "resume $node" >>{folder}/log/power
  setsid slurmd -b -N $node >/dev/null 2>&1
done
"""


_TASK_PROLOG = """\
#!/bin/sh
export POWERHALL_LEVEL_DIR={folder}/levels
exec {folder}/shipped_prolog
"""


@dataclass(frozen=True, slots=True)
class SlurmRig:
    """A running cluster; `env` is what its commands need."""

    folder: Path
    nodes: tuple[str, ...]
    env: dict[str, str]
    version: tuple[int, int]

    def run(self, *command: str, check: bool = True, user: str = "") -> str:
        """Run a Slurm command, as another user where one is named, and return its output."""
        env = self.env
        if user and "POWERHALL_SLURM_BIN" in os.environ:
            env = env | {"POWERHALL_AS_USER": user}  # the small scripts of slurm_tree.sh switch user inside the tree
        elif user:
            command = ("setpriv", "--reuid", user, "--clear-groups", *command)
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def submit(self, *options: str, seconds: float = 600, user: str = "") -> str:
        """Submit a job that sleeps, and return its id."""
        wrap = f"exec sleep {seconds}"
        return self.run("sbatch", "--parsable", "-D", "/", "-o", "/dev/null", *options, "--wrap", wrap, user=user)

    def states(self) -> dict[str, str]:
        """Return the state of every job that Slurm still knows, array tasks as 12_3."""
        rows = self.run("squeue", "-a", "-h", "-r", "-t", "all", "-o", "%i|%T").splitlines()
        return dict(row.split("|") for row in rows)  # type: ignore[misc]

    def licences_used(self, name: str = "kw") -> int:
        """Return how many tokens of a licence running jobs hold, as Slurm counts them."""
        found = re.search(rf"LicenseName={name} Total=\d+ Used=(\d+)", self.run("scontrol", "-o", "show", "lic"))
        assert found
        return int(found[1])

    def wait(self, job: str, state: str, seconds: float = 20) -> None:
        """Wait until a job has a state."""
        deadline = time.monotonic() + seconds
        while (now := self.states().get(job)) != state:
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job} is {now}, not {state}, after {seconds} s")
            time.sleep(0.1)

    def clear(self) -> None:
        """Cancel everything and wait until the cluster is idle, with no reservation left."""
        for line in self.run("scontrol", "-o", "show", "reservation").splitlines():
            if found := re.match(r"ReservationName=(\S+)", line):
                self.run("scontrol", "delete", f"ReservationName={found[1]}")
        self._cancel()
        self.run("scancel", "--full", "-s", "KILL", "-u", "root", check=False)
        deadline, again = time.monotonic() + _DEADLINE_S, time.monotonic() + 3
        while self.run("squeue", "-h", "-t", "PD,R,CG,S", "-o", "%i"):
            if time.monotonic() > deadline:
                raise RuntimeError("jobs did not end:\n" + self.run("squeue"))
            if time.monotonic() > again:  # one that started just then may have been passed over
                self._cancel()
                again += 3
            time.sleep(0.1)

    def _cancel(self) -> None:
        for user in ("root", "65534"):  # nobody: the trees of debootstrap may not know the name
            self.run("scancel", "-u", user, check=False)


def missing() -> str:
    """Say which program is absent; "" when the rig can start."""
    absent = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"{', '.join(absent)} not installed (apt install slurmctld slurmd slurm-client slurm-wlm-basic-plugins)"
    return "" if os.geteuid() == 0 else "the Slurm rig must run as root: it starts slurmctld and slurmd"


def _path() -> str:
    return ":".join(
        (os.environ.get("POWERHALL_SLURM_BIN", "/usr/bin"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
    )


def installed_version() -> tuple[int, int]:
    """Return Slurm's version."""
    told = subprocess.run(["slurmctld", "-V"], env={"PATH": _path()}, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", told)
    assert found, told
    return int(found[1]), int(found[2])


def _free_ports(count: int) -> int:
    """Return the first of `count` free ports in a row."""
    for first in range(_PORTS.start, _PORTS.stop - count, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, probe in enumerate(sockets):
                probe.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
        return first
    raise RuntimeError(f"no {count} free ports in a row in {_PORTS}")


def _write(folder: Path, nodes: int, licences: str, lua: Path, version: tuple[int, int]) -> None:
    for name in ("state", "spool", "run", "log", "dev", "levels"):
        (folder / name).mkdir()
    for number in range(8):
        (folder / "dev" / f"nvidia{number}").touch()
    port = _free_ports(nodes + 1)
    modern = version >= (23, 11)
    auth = "AuthType=auth/slurm\nCredType=auth/slurm" if modern else "AuthType=auth/none\nCredType=cred/none"
    if modern:
        key = folder / "slurm.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
    conf = _CONF.format(
        folder=folder, port=port, auth=auth, licences=licences, last=nodes, first=port + 1, end=port + nodes
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(
        f"AutoDetect=off\nNodeName=gn[01-{nodes:02d}] Name=gpu Type=h200 File={folder}/dev/nvidia[0-7]\n"
    )
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if modern else 'cgroup/v1'}\n")
    shutil.copy(lua, folder / "job_submit.lua")
    shutil.copy(_SHIPPED / "task_prolog.sh", folder / "shipped_prolog")
    for name, text in (("suspend", _SUSPEND), ("resume", _RESUME), ("task_prolog", _TASK_PROLOG)):
        script = folder / name
        script.write_text(text.format(folder=folder))
        script.chmod(0o755)


def _spawn(env: dict[str, str], log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)


@contextmanager
def start(
    lua: Path, *, nodes: int = 8, licences: str = "kw:60,cool_kw:200", change: Callable[[Path], None] | None = None
) -> Iterator[SlurmRig]:
    """Start a cluster with this job_submit.lua, wait until all nodes are idle, and stop it at the end.

    `change` may edit the files of its folder before.
    """
    folder = Path(tempfile.mkdtemp(prefix="powerhall-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    env = {"PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf"), "HOME": "/root", "TZ": "UTC"}
    version = installed_version()
    _write(folder, nodes, licences, lua, version)
    if change is not None:
        change(folder)
    names = tuple(f"gn{number:02d}" for number in range(1, nodes + 1))
    rig = SlurmRig(folder, names, env, version)
    processes = [_spawn(env, folder / "log" / "slurmctld.out", "slurmctld", "-D")]
    for name in names:
        (folder / "spool" / name).mkdir()
        processes.append(_spawn(env, folder / "log" / f"{name}.out", "slurmd", "-N", name, "-D"))
    try:
        _wait_idle(rig, processes)
        yield rig
        rig.clear()
    finally:
        _stop(processes, folder)


def _wait_idle(rig: SlurmRig, processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all nodes; a slurmd that ended while many start at once is started again."""
    deadline = time.monotonic() + _DEADLINE_S
    while rig.run("sinfo", "-h", "-t", "idle", "-o", "%D", check=False) != str(len(rig.nodes)):
        if processes[0].poll() is not None:
            raise RuntimeError("slurmctld ended: " + (rig.folder / "log" / "slurmctld.out").read_text()[-2000:])
        for number, name in enumerate(rig.nodes, 1):
            if processes[number].poll() is not None:
                log = rig.folder / "log" / f"{name}.out"
                if time.monotonic() > deadline - _DEADLINE_S / 2:
                    raise RuntimeError(f"slurmd of {name} ended:\n{log.read_text()[-1000:]}")
                time.sleep(0.3)
                processes[number] = _spawn(rig.env, log, "slurmd", "-N", name, "-D")
        if time.monotonic() > deadline:
            raise RuntimeError("nodes are not idle:\n" + rig.run("sinfo", "-N", "-l", check=False))
        time.sleep(0.1)


def _stop(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    for file in (folder / "run").glob("slurmd.*.pid"):  # nodes that the resume hook started anew
        pid = file.read_text().strip()
        name = Path(f"/proc/{pid}/comm")
        if pid.isdigit() and name.exists() and "slurmd" in name.read_text():
            os.kill(int(pid), signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)


def mixed(folder: Path) -> None:
    """Make twelve nodes of two kinds: gn01-08 of hall1 with shards (gn01-04 with the feature ib), gn09-12 of hall2.

    gn13, which is down, has 8 GPUs of two MIG instances each. Partitions: gpu (gn01-12), mig (gn13), right (gn07-12),
    short (30 minutes), whole and inherits (gn01-04, whole nodes only), shared (gn08, for its job_submit.lua a prepaid
    node), sets (a node set and gn08), half (gn01-08, 32 CPUs of each).
    """
    conf = (folder / "slurm.conf").read_text()
    head, _, nodes = conf.partition("NodeName=")
    first = int(re.search(r"Port=\[(\d+)-", nodes)[1])  # type: ignore[index]
    like = "CPUs=64 Boards=1 SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=1000000"
    kinds = (
        ("gn[01-04]", 0, 3, "gpu:h200:8,shard:h200:32", "hall1,ib"),
        ("gn[05-08]", 4, 7, "gpu:h200:8,shard:h200:32", "hall1"),
        ("gn[09-12]", 8, 11, "gpu:4090:8", "hall2"),
    )
    lines = [
        f"NodeName={names} NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first + low}-{first + high}] {like} "
        f"Gres={gres} Feature={features} State=UNKNOWN"
        for names, low, high, gres, features in kinds
    ]
    lines += [
        # described only: no slurmd runs for it
        f"NodeName=gn13 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first + 12} {like} "
        "Gres=gpu:3g.40gb:16 State=DOWN",
        "PartitionName=mig Nodes=gn13 MaxTime=INFINITE State=UP OverSubscribe=NO",
        "PartitionName=gpu Nodes=gn[01-12] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO",
        "PartitionName=right Nodes=gn[07-12] MaxTime=7-0 State=UP OverSubscribe=NO",
        "PartitionName=short Nodes=gn[01-12] MaxTime=30 DefaultTime=10 State=UP OverSubscribe=NO",
        "NodeSet=fast Feature=ib",
        "PartitionName=sets Nodes=fast,gn08 MaxTime=INFINITE State=UP OverSubscribe=NO",
        "PartitionName=shared Nodes=gn08 MaxTime=INFINITE State=UP OverSubscribe=NO",
        "PartitionName=whole Nodes=gn[01-04] MaxTime=INFINITE State=UP OverSubscribe=EXCLUSIVE",
        "PartitionName=half Nodes=gn[01-08] MaxCPUsPerNode=32 MaxTime=INFINITE State=UP OverSubscribe=NO",
        "PartitionName=DEFAULT OverSubscribe=EXCLUSIVE",
        "PartitionName=inherits Nodes=gn[01-04] MaxTime=INFINITE State=UP",
    ]
    head = head.replace("GresTypes=gpu\n", "GresTypes=gpu,shard\n")
    (folder / "slurm.conf").write_text(head + "\n".join(lines) + "\n")
    (folder / "gres.conf").write_text(
        f"AutoDetect=off\nNodeName=gn[01-08] Name=gpu Type=h200 File={folder}/dev/nvidia[0-7]\n"
        f"NodeName=gn[01-08] Name=shard Count=32\n"
        f"NodeName=gn[09-12] Name=gpu Type=4090 File={folder}/dev/nvidia[0-7]\n"
    )
