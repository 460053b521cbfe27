"""One cluster for all tests of this folder: its programs start once."""

import time

import pytest
import yaml

from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from rigs.kubernetes import cluster as rig
from rigs.kubernetes import kueue
from rigs.kubernetes.work import NODES
from rigs.two_halls import HALLS, TYPES


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, root):
    with rig.start(tmp_path_factory.mktemp("kubernetes")) as running:
        running.nodes(NODES, labels={"powerhall.io/hall": "hall1"})
        running.kubectl("create", "namespace", "powerhall")
        running.kubectl("apply", "--server-side", "-f", str(root / "deploy/kubernetes/rbac.yaml"))
        yield running


@pytest.fixture
def team(cluster):
    """A namespace of its own for a test, and nothing of it left."""
    name = f"team-{time.monotonic_ns()}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "job", "--all", "-n", name, "--cascade=foreground", "--wait=false", check=False)
    cluster.kubectl("delete", "pod", "--all", "-n", name, "--force", "--grace-period=0", check=False)
    cluster.kubectl("delete", "lease", "--all", "-n", "powerhall", check=False)
    gone = lambda: not cluster.get("pods", "-n", name)["items"]  # noqa: E731
    rig.until("pods are gone", gone)
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def settings(cluster, tmp_path):
    """The service account of the optimizer, with the rights of rbac.yaml and no other."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(cluster.token_of("powerhall-optimizer", "powerhall"))
    return KubernetesSettings(
        server=cluster.url, ca_file=cluster.ca_file, token_file=str(token), identity="test", lease_s=5
    )


@pytest.fixture
def labels(cluster):
    """Labels of the halls and types of `rigs.two_halls` on all nodes."""
    for hall, nodes in HALLS.items():
        keys = f"powerhall.io/hall={hall}", f"powerhall.io/node-type={TYPES[hall]}"
        cluster.kubectl("label", "node", *nodes, *keys, "--overwrite")
    yield
    cluster.kubectl("label", "node", *NODES, "powerhall.io/hall=hall1", "powerhall.io/node-type-", "--overwrite")


@pytest.fixture(scope="session")
def queues(cluster, root):
    """Kueue, set up by the two files that are shipped."""
    shipped = yaml.safe_load((root / "deploy/kubernetes/kueue-configuration.yaml").read_text())
    with kueue.start(cluster, shipped["resources"]["transformations"]):
        cluster.kubectl("apply", "--server-side", "-f", str(root / "deploy/kubernetes/kueue.yaml"))
        yield
        cluster.kubectl("delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", "--all")
