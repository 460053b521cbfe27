"""Kueue as a process beside the cluster: its own manifests without the Deployment, its webhooks on loopback."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from rigs.kubernetes.cluster import CACHE, Cluster, _module, free_port

VERSION = "v0.17.0"
_SERVICE = "kueue-webhook-service"


@contextmanager
def start(cluster: Cluster, transformations: list[dict[str, Any]]) -> Iterator[None]:
    """Install Kueue with these transformations of resources; end it at the end."""
    health, hook, certificates = free_port(), free_port(), cluster.folder / "kueue-certs"
    _apply(cluster, _manifests(hook))
    config = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": "kueue-system",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": hook, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {
            "enable": True,
            "webhookServiceName": _SERVICE,
            "webhookSecretName": "kueue-webhook-server-cert",
        },
        "integrations": {"frameworks": ["batch/job"]},
        "resources": {"transformations": transformations},
    }
    settings = cluster.folder / "kueue.json"
    settings.write_text(json.dumps(config))
    certificates.mkdir(exist_ok=True)
    command = ["env", f"KUBECONFIG={cluster.kubeconfig}", str(CACHE / "kueue"), f"--config={settings}"]
    cluster.run("kueue", [*command, "--feature-gates=VisibilityOnDemand=false"])
    secret = cluster.up("kueue", "Kueue's certificate", lambda: _secret(cluster))
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (certificates / name).write_bytes(base64.b64decode(secret[name]))
    cluster.up("kueue", "Kueue's webhook answers", lambda: _takes_a_flavour(cluster))
    yield
    cluster.end("kueue")


def _manifests(hook: int) -> list[dict[str, Any]]:
    """Return Kueue's objects, its webhooks at this port of this host."""
    folder = _module("sigs.k8s.io/kueue", VERSION) / "config" / "default"
    made = subprocess.run(["kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True).stdout
    objects = []
    for item in yaml.safe_load_all(made):
        if item["kind"] in ("Deployment", "APIService"):
            continue
        if item["kind"] == "Service":
            if item["metadata"]["name"] != _SERVICE:
                continue
            item["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        for entry in item.get("webhooks", ()):
            entry["clientConfig"]["service"]["port"] = hook
            entry["timeoutSeconds"] = 30
        conversion = item.get("spec", {}).get("conversion", {}) if item["kind"] == "CustomResourceDefinition" else {}
        if "webhook" in conversion:
            conversion["webhook"]["clientConfig"]["service"]["port"] = hook
        objects.append(item)
    return objects


def _apply(cluster: Cluster, objects: list[dict[str, Any]]) -> None:
    first = [o for o in objects if o["kind"] in ("Namespace", "CustomResourceDefinition")]
    cluster.apply(*first)
    cluster.kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=110s")
    cluster.apply(*[o for o in objects if o not in first])


def _secret(cluster: Cluster) -> dict[str, str] | None:
    found = cluster.kubectl(
        "get", "secret", "kueue-webhook-server-cert", "-n", "kueue-system", "-o", "json", check=False
    )
    data: dict[str, str] = json.loads(found).get("data") or {} if found.startswith("{") else {}
    return data if "tls.key" in data else None


def _takes_a_flavour(cluster: Cluster) -> bool:
    flavour = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ResourceFlavor", "metadata": {"name": "probe"}}
    said = cluster.kubectl(
        "apply", "--server-side", "--dry-run=server", "-f", "-", text=json.dumps(flavour), check=False
    )
    return "serverside-applied" in said
