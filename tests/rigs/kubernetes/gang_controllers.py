"""JobSet and KubeRay as processes beside the cluster, and the API of LeaderWorkerSets: their own manifests and CRDs."""

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from rigs.kubernetes.cluster import CACHE, Cluster, _module, free_port
from rigs.kubernetes_gangs import job_set

JOBSET, RAY, SETS = "v0.11.1", "v1.6.0", "v0.8.0"
_HOOK, _HOST = "jobset-webhook-service", "jobset-webhook-service.jobset-system.svc"


@contextmanager
def start(cluster: Cluster) -> Iterator[None]:
    """Install the three APIs and run the controllers of the first two; end them at the end."""
    ray = _module("github.com/ray-project/kuberay/ray-operator", RAY) / "config" / "crd" / "bases"
    sets = _module("sigs.k8s.io/lws", SETS) / "config" / "crd" / "bases"
    for folder in (ray, sets):
        cluster.kubectl("apply", "--server-side", "-f", str(folder))
    health = free_port()
    ray_command = ["env", f"KUBECONFIG={cluster.kubeconfig}", str(CACHE / "ray-operator"), "--metrics-addr=0"]
    ray_command.append("--enable-leader-election=false")
    cluster.run("ray-operator", [*ray_command, f"--health-probe-bind-address=127.0.0.1:{health}"])
    hooks = _start_job_sets(cluster)
    yield
    cluster.end("jobset")
    cluster.end("ray-operator")
    cluster.kubectl("delete", *hooks)


def _start_job_sets(cluster: Cluster) -> list[str]:
    """Start the controller of JobSets; return the names of its webhooks' configurations."""
    hook, folder = free_port(), cluster.folder / "jobset"
    folder.mkdir(exist_ok=True)
    _certificate(folder)
    objects = _manifests(hook, (folder / "tls.crt").read_bytes())
    first = [one for one in objects if one["kind"] in ("Namespace", "CustomResourceDefinition")]
    cluster.apply(*first)
    cluster.kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=110s")
    cluster.apply(*[one for one in objects if one not in first])
    config = {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": "0"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": hook, "certDir": str(folder)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["env", f"KUBECONFIG={cluster.kubeconfig}", str(CACHE / "jobset")]
    cluster.run("jobset", [*command, f"--config={folder}/config.yaml"])
    cluster.up("jobset", "the webhook of JobSets answers", lambda: _takes_a_job_set(cluster))
    return [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in objects if "webhooks" in one]


def _certificate(folder: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={_HOST}"]
    files = ["-addext", f"subjectAltName=DNS:{_HOST}", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    (folder / "tls.key").chmod(0o600)


def _manifests(hook: int, authority: bytes) -> list[dict[str, Any]]:
    """Return JobSet's objects, its webhooks at this port of this host."""
    folder = _module("sigs.k8s.io/jobset", JOBSET) / "config" / "default"
    made = subprocess.run(["kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True).stdout
    objects = []
    for item in yaml.safe_load_all(made):
        if item["kind"] == "Deployment" or (item["kind"] == "Service" and item["metadata"]["name"] != _HOOK):
            continue
        if item["kind"] == "Service":
            item["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        for entry in item.get("webhooks", ()):
            entry["clientConfig"]["service"]["port"] = hook
            entry["timeoutSeconds"] = 30
            entry["clientConfig"]["caBundle"] = base64.b64encode(authority).decode()
        objects.append(item)
    return objects


def _takes_a_job_set(cluster: Cluster) -> bool:
    text = yaml.safe_dump(job_set("default", "probe", w=(1, 1, 1)))
    said = cluster.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", text=text, check=False)
    return "serverside-applied" in said
