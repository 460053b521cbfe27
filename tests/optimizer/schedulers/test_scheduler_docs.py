"""The guide of each scheduler: its config works as it stands, and every setting is named."""

import json
import re
import time
import tomllib

import msgspec
import pytest
import yaml

from powerhall.jobs import Job
from powerhall.plan.plan import write_plan
from powerhall_optimizer.cli import main
from powerhall_optimizer.schedulers import registry
from powerhall_optimizer.schedulers.kubernetes.jobs import to_job
from powerhall_optimizer.schedulers.registry import read_settings
from powerhall_optimizer.schedulers.slurm.writer import SlurmReader
from rigs import kubernetes_api
from rigs.plans import greedy_plan, small_site

SCHEDULERS = registry.scheduler_names()


def page_of(root, name):
    """Return the guide of a scheduler; one that has none fails."""
    pages = [root / "docs" / "guide" / f"{name}{end}.md" for end in ("", "-scheduler")]
    (page,) = (page for page in pages if page.exists())
    return page


def structs_of(kind):
    """Yield the settings and the structs in them."""
    yield kind
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from structs_of(field.type)


@pytest.fixture(scope="module")
def config(root):
    def find(page, kind="toml"):
        found = re.search(rf"```{kind}[^\n]*\n(.*?)```", (root / "docs" / "guide" / page).read_text(), re.DOTALL)
        assert found is not None, page
        return found[1]

    return find


def plan_at(tmp_path, site, jobs, now_s):
    plan = greedy_plan(site, jobs, start_s=now_s, slot_s=60, budget_w=[60_000] * 60)
    write_plan(plan, tmp_path / "plan.json")
    return plan


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_setting_is_named_on_its_page(root, name):
    text = page_of(root, name).read_text()
    for kind in structs_of(type(read_settings(None)[name])):
        for field in msgspec.structs.fields(kind):
            assert re.search(rf"`{field.name}`|^{field.name} =", text, re.MULTILINE), field.name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_config_of_its_page_is_read_and_sets_it(root, config, tmp_path, name):
    text = config(page_of(root, name).name)
    (tmp_path / "scheduler.toml").write_text(text)
    read_settings(tmp_path / "scheduler.toml")
    assert name in tomllib.loads(text)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_navigation_leads_to_its_page(root, name):
    assert f'"guide/{page_of(root, name).name}"' in (root / "zensical.toml").read_text()


def test_the_file_config_gives_orders(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scheduler.toml").write_text(config("file-scheduler.md"))
    (tmp_path / "jobs.csv").write_text("job_id,gpus,duration_s\none,8,600\n")
    options = ["--scheduler", "file", "--settings", "scheduler.toml"]
    assert main(["queue", *options, "--out", "jobs.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["down_nodes"] == ["gn08"]
    plan_at(tmp_path, small_site(["gn01", "gn08"]), (Job("one", 8, 600.0),), int(time.time()))
    assert main(["schedule", *options, "--plan", "plan.json"]) == 0
    assert "one,start" in (tmp_path / "orders.csv").read_text()


@pytest.mark.rig
def test_the_slurm_config_writes_into_a_cluster(config, slurm, tmp_path, capsys):
    text = config("slurm.md").replace("/shared/powerhall/levels", str(slurm.folder / "levels"))
    assert "power_save_s = 3600\n" in text
    text = text.replace("power_save_s = 3600\n", "")  # idle nodes go down and come back in a test of their own
    (tmp_path / "scheduler.toml").write_text(text.replace('"hgx-h200"', '"hgx"'))
    settings = read_settings(tmp_path / "scheduler.toml")["slurm"]
    job = slurm.submit("-N1", "--gpus-per-node=8", "-t", "10", "--begin=now+600")
    site = small_site(slurm.nodes)
    queue = SlurmReader(site, settings).read()
    plan_at(tmp_path, site, queue.jobs, int(time.time()))
    options = ["--scheduler", "slurm", "--settings", str(tmp_path / "scheduler.toml")]
    try:
        assert main(["schedule", *options, "--plan", str(tmp_path / "plan.json"), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert f"job {job}" in {command["subject"] for command in report["commands"]}
        assert (slurm.folder / "levels" / job).read_text().startswith("POWERHALL_MODE=fast")
    finally:
        for file in (slurm.folder / "levels").iterdir():
            file.unlink()


@pytest.mark.rig
def test_the_kubernetes_config_starts_the_job_of_the_page(config, tmp_path, capsys):
    raw = yaml.safe_load(config("kubernetes.md", "yaml"))
    raw["metadata"]["namespace"] = "team-a"
    raw["metadata"]["annotations"].pop("powerhall.io/earliest")
    limits = raw["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits["nvidia.com/gpu"] = str(limits["nvidia.com/gpu"])  # as an API server answers
    site = small_site([f"gn{n:02d}" for n in range(1, 9)])
    with kubernetes_api.start() as rig:
        text = config("kubernetes.md").replace("[kubernetes]\n", f'[kubernetes]\nserver = "{rig.url}"\n', 1)
        (tmp_path / "scheduler.toml").write_text(text)
        settings = read_settings(tmp_path / "scheduler.toml")["kubernetes"]
        rig.put("jobs", raw)
        queue = {"metadata": {"name": "hall1"}, "spec": {"resourceGroups": []}}
        rig.put("clusterqueues", queue)
        rig.put("localqueues", {"metadata": {"name": "hall1", "namespace": "team-a"}})
        made = to_job(rig.get("jobs", "train", "team-a"), site, settings, now_s=0.0)
        assert isinstance(made, Job), made
        plan_at(tmp_path, site, (msgspec.structs.replace(made, job_class=""),), int(time.time()))
        options = ["--scheduler", "kubernetes", "--settings", str(tmp_path / "scheduler.toml")]
        assert main(["schedule", *options, "--plan", str(tmp_path / "plan.json"), "--json"]) == 0
        labels = rig.get("jobs", "train", "team-a")["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "hall1"
    assert json.loads(capsys.readouterr().out)["commands"]
