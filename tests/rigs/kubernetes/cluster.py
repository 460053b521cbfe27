"""A real Kubernetes control plane on loopback: etcd, API server, controllers, scheduler, and kwok for nodes and pods.

`build.sh` beside this file builds the programs into a cache folder once; etcd is Debian's. Nodes are objects that kwok
keeps Ready, and pods "run" on them until they are deleted or their Job is suspended.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = os.environ.get("POWERHALL_KUBERNETES", "1.33")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "powerhall" / "kubernetes" / VERSION
_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
_KWOK_STAGES = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-delete",  # without pod-complete: a pod runs until somebody ends it
)
_DEADLINE_S = 240.0
_START_S = 600.0
"""A program may take so long to start on a machine that has much else to do; one that has ended is told at once."""


def missing(*more: str) -> str:
    """Return why the cluster cannot be started here, or ""."""
    lacks = [name for name in (*_PROGRAMS, *more) if not (CACHE / name).exists()]
    if lacks:
        return f"needs {', '.join(lacks)} in the cache (make kubernetes-servers)"
    lacks = [name for name in ("etcd", "kubectl") if shutil.which(name) is None]
    return f"needs {', '.join(lacks)} (apt install etcd-server)" if lacks else ""


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, holds: Callable[[], object], seconds: float = _DEADLINE_S) -> Any:
    """Wait until something holds, and return it; a command that took too long on a busy machine is tried again."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        with suppress(subprocess.TimeoutExpired):
            if found := holds():
                return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass
class Cluster:
    """The running cluster; `commands` are those of its programs, by name."""

    folder: Path
    url: str = ""
    ca_file: str = ""
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    commands: dict[str, list[str]] = field(default_factory=dict)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        """Credentials of an administrator."""
        return self.folder / "admin.json"

    def run(self, name: str, command: list[str]) -> None:
        """Start a program, its output into the folder."""
        self.commands[name] = command
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def end(self, name: str, *, kill: bool = False) -> None:
        """End a program."""
        process = self.processes.pop(name)
        process.kill() if kill else process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def up(self, name: str, what: str, holds: Callable[[], object]) -> Any:
        """Wait until a program that was started does something; told with its last lines at once where it has ended."""
        process = self.processes[name]

        def looks() -> object:
            found = holds()
            if not found and process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}: {self._last(name)}")
            return found

        try:
            return until(what, looks, _START_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._last(name)}") from None

    def _last(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def restart(self, name: str) -> None:
        """Kill a program and start it again."""
        self.end(name, kill=True)
        self.run(name, self.commands[name])
        self.wait()

    def wait(self) -> None:
        """Wait until the API server is ready."""
        ready = lambda: self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok"  # noqa: E731
        self.up("kube-apiserver", "the API server is ready", ready)

    def kubectl(self, *arguments: str, text: str = "", check: bool = True, token: str = "") -> str:
        """Run kubectl as administrator, or with a token; return its output (with its errors, where not checked)."""
        as_whom = ["--kubeconfig", str(self.kubeconfig)]
        if token:  # a file, so that no argument shows it
            config = self.folder / "other.json"
            config.write_text(json.dumps(self._config(token)))
            as_whom = ["--kubeconfig", str(config)]
        done = subprocess.run(
            ["kubectl", *as_whom, *arguments], input=text, capture_output=True, text=True, check=False, timeout=120
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout + ("" if check else done.stderr)

    def get(self, *arguments: str) -> Any:
        """Return objects as kubectl gets them."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects, on the server's side."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)

    def nodes(self, names: tuple[str, ...], gpus: int = 8, labels: dict[str, str] | None = None) -> None:
        """Make nodes with GPUs, and wait until they are Ready."""
        room = {"cpu": "256", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
        for name in names:
            marks = {"kubernetes.io/hostname": name} | (labels or {})
            status = {"capacity": room, "allocatable": room}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": marks}}
            self.kubectl("create", "-f", "-", text=json.dumps(node | {"status": status}))
        ready = lambda: all(_is_ready(node) for node in self.get("nodes")["items"])  # noqa: E731
        self.up("kwok", "the nodes are ready", ready)

    def token_of(self, account: str, namespace: str) -> str:
        """Return a token of a service account."""
        return self.kubectl("create", "token", account, "-n", namespace).strip()

    def _config(self, token: str) -> dict[str, Any]:
        server = {"server": self.url, "certificate-authority": self.ca_file}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }

    def write_config(self) -> None:
        """Write the administrator's credentials."""
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(json.dumps(self._config(self.token)))


def _is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))


@contextmanager
def start(folder: Path) -> Iterator[Cluster]:
    """Start the cluster without nodes; end all its programs at the end."""
    cluster = Cluster(folder)
    with ExitStack() as ends:
        ends.callback(lambda: [cluster.end(name) for name in reversed(list(cluster.processes))])
        _start_server(cluster)
        _start_controllers(cluster)
        yield cluster


def _start_server(cluster: Cluster) -> None:
    folder, store, peer, port = cluster.folder, free_port(), free_port(), free_port()
    for name, command in {
        "sa.key": ["genrsa", "-out", f"{folder}/sa.key", "2048"],
        "sa.pub": ["rsa", "-in", f"{folder}/sa.key", "-pubout", "-out", f"{folder}/sa.pub"],
    }.items():
        subprocess.run(["openssl", *command], check=True, capture_output=True)
        (folder / name).chmod(0o600)
    tokens = folder / "tokens.csv"
    tokens.touch(0o600)
    tokens.write_text(f'{cluster.token},admin,admin,"system:masters"\n')
    at = f"http://127.0.0.1:{store}"
    peers = f"http://127.0.0.1:{peer}"
    cluster.run(
        "etcd",
        [
            "etcd",
            *("--data-dir", f"{folder}/etcd", "--listen-client-urls", at, "--advertise-client-urls", at),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}", "--unsafe-no-fsync"),
        ],
    )
    cluster.run(
        "kube-apiserver",
        [
            str(CACHE / "kube-apiserver"),
            f"--etcd-servers={at}",
            f"--secure-port={port}",
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={folder}/certs"),
            *(f"--service-account-key-file={folder}/sa.pub", f"--service-account-signing-key-file={folder}/sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc",
            *(f"--token-auth-file={tokens}", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"),
            "--endpoint-reconciler-type=none",  # it has no address that is not of loopback
        ],
    )
    cluster.url, cluster.ca_file = f"https://127.0.0.1:{port}", f"{folder}/certs/apiserver.crt"
    cluster.write_config()
    cluster.up("kube-apiserver", "the server's certificate", Path(cluster.ca_file).exists)
    cluster.wait()


def _start_controllers(cluster: Cluster) -> None:
    folder, config = cluster.folder, f"--kubeconfig={cluster.kubeconfig}"
    cluster.run(
        "kube-controller-manager",
        [
            str(CACHE / "kube-controller-manager"),
            *(config, "--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=false"),
            *(f"--service-account-private-key-file={folder}/sa.key", f"--root-ca-file={cluster.ca_file}"),
            "--controllers=*,-node-ipam-controller",
            "--node-monitor-grace-period=300s",  # kwok may be late on a busy machine, and no pod is to go for that
        ],
    )
    cluster.run("kube-scheduler", [str(CACHE / "kube-scheduler"), config, "--leader-elect=false", "--secure-port=0"])
    stages = _module("sigs.k8s.io/kwok", "v0.8.0") / "kustomize" / "stage"
    made = folder / "stages.yaml"
    made.write_text("\n---\n".join((stages / f"{stage}.yaml").read_text() for stage in _KWOK_STAGES))
    cluster.run(
        "kwok",
        [
            str(CACHE / "kwok"),
            *(config, "--manage-all-nodes=true", "--node-lease-duration-seconds=40", f"--config={made}"),
            *("--server-address=", "--node-port=0"),
        ],
    )
    accounts = lambda: "default" in cluster.kubectl("get", "sa", "-o", "name", check=False)  # noqa: E731
    cluster.up("kube-controller-manager", "the default service account", accounts)


def _module(name: str, version: str) -> Path:
    """Return the folder of a module's sources in Go's cache."""
    done = subprocess.run(["go", "mod", "download", "-json", f"{name}@{version}"], check=True, capture_output=True)
    return Path(json.loads(done.stdout)["Dir"])
