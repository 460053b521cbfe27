"""The rendered chart fits Kubernetes' own schemas; the plain manifests equal the rendered chart."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

VARIANTS = {
    "default": (),
    "simulated": ("--set", "agent.simulate=true,agent.runtimeClassName=", "--set", "optimizer.scheduler=file"),
    "a roll-up per hall": ("--set", "rollup.halls={hall1,Hall_2}"),
    "agent only": ("--set", "optimizer.enabled=false,rollup.enabled=false"),
}


@pytest.fixture(scope="module")
def helm():
    found = shutil.which("helm") or shutil.which("helm", path=Path.home() / "go" / "bin")
    if found is None:
        pytest.skip("needs helm: go install helm.sh/helm/v3/cmd/helm@v3.17.3")
    return found


def render(helm, root, *options):
    chart = root / "deploy" / "helm" / "powerhall"
    command = [helm, "template", "powerhall", chart, "--namespace", "powerhall", "--kube-version", "1.33.0", *options]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"KUBECONFIG": "/dev/null"}
    ).stdout


def test_the_chart_passes_lint(helm, root):
    done = subprocess.run(
        [helm, "lint", "--strict", root / "deploy/helm/powerhall"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("variant", "version"),
    [
        ("default", "1.30"),
        ("default", "1.33"),
        ("default", "1.36"),
        ("simulated", "1.33"),
        ("agent only", "1.33"),
        ("a roll-up per hall", "1.33"),
    ],
)
def test_rendered_manifests_fit_the_schemas(helm, root, tmp_path, variant, version):
    path = tmp_path / "all.yaml"
    path.write_text(render(helm, root, *VARIANTS[variant]))
    validate = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run([validate, "-k", version, "--strict", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_large_sites_get_a_roll_up_per_hall_and_one_for_the_site(helm, root):
    found = {}
    for entry in yaml.safe_load_all(render(helm, root, *VARIANTS["a roll-up per hall"])):
        if entry and entry["kind"] == "Deployment":
            found[entry["metadata"]["name"]] = entry["spec"]["template"]["spec"]["containers"][0]["args"][5:]
    assert found == {
        "powerhall-rollup-site": ["--site-only"],
        "powerhall-rollup-hall1": ["--hall", "hall1"],
        "powerhall-rollup-hall-2": ["--hall", "Hall_2"],
    }


def test_the_plain_manifests_equal_the_rendered_chart(helm, root):
    committed = (root / "deploy/kubernetes/powerhall.yaml").read_text()
    assert committed.split("\n", 3)[3] == render(helm, root), "run `make manifests`"


def documents(root):
    return [entry for entry in yaml.safe_load_all((root / "deploy/kubernetes/powerhall.yaml").read_text()) if entry]


def pods(root):
    for entry in documents(root):
        spec = entry.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield entry["kind"], spec["template"]["spec"]


def test_every_container_is_confined_and_bounded(root):
    for kind, pod in pods(root):
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["runAsNonRoot"] is True, kind
            assert context["readOnlyRootFilesystem"] is True, kind
            assert context["allowPrivilegeEscalation"] is False, kind
            assert context["capabilities"] == {"drop": ["ALL"]}, kind
            assert set(container["resources"]) == {"requests", "limits"}, kind


def test_no_secret_stands_in_arguments_or_environment(root):
    text = (root / "deploy/kubernetes/powerhall.yaml").read_text()
    assert "kind: Secret" not in text
    assert "secretKeyRef" not in text
    assert "token=" not in text.replace("token_file=", "")


def test_the_optimizer_may_do_no_more_than_its_work(root):
    for entry in documents(root):
        for rule in entry.get("rules", []):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"delete", "deletecollection", "escalate", "impersonate"} & set(rule["verbs"])
            assert "secrets" not in rule["resources"]
