"""`install`: texts for this host, files that were changed by hand stay, the same again changes nothing."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from powerhall.install.shipped import FOLDERS, shipped_file
from powerhall_agent import cli as agent
from powerhall_agent.commands import install as agent_install
from powerhall_dashboards import cli as dashboards
from powerhall_dashboards.commands import install as dashboards_install
from powerhall_optimizer import cli as optimizer
from powerhall_optimizer.commands import install as optimizer_install

UNIT = "etc/systemd/system/powerhall-lease.service"


@pytest.fixture
def install(tmp_path, capsys):
    def run(*words, main=agent.main):
        code = main(["install", "--root", str(tmp_path), "--prefix", "/opt/powerhall", *words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def actions(out):
    return {file["path"].rsplit("/", 1)[1]: file["action"] for file in json.loads(out)["files"]}


def test_a_dry_run_and_print_write_nothing(install, tmp_path):
    code, out, _ = install("--dry-run")
    assert code == 0
    assert "write   " in out
    assert install("--print")[1].count("# FILE /etc/") == 10
    assert list(tmp_path.iterdir()) == []


def test_the_same_again_changes_nothing(install, tmp_path):
    install()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, out, _ = install("--json")
    assert code == 0
    assert set(actions(out).values()) == {"same"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_untouched_file_is_updated_and_a_changed_one_stays(install, tmp_path):
    install("--user", "lease=old")
    assert actions(install("--json")[1])["powerhall-lease.service"] == "update"
    unit = tmp_path / UNIT
    unit.write_text(unit.read_text().replace("RestartSec=1", "RestartSec=9"))
    code, out, _ = install()
    assert code == 1
    assert "was changed by hand" in out
    assert "RestartSec=9" in unit.read_text()
    assert "RestartSec=1\n" in unit.with_name(unit.name + ".new").read_text()
    assert install("--force")[0] == 0
    assert "RestartSec=1\n" in unit.read_text()
    assert "RestartSec=9" in unit.with_name(unit.name + ".old").read_text()


def test_grafana_gets_dashboards_rules_and_an_example_of_its_data_source(install, tmp_path):
    """JSON has no comments: what was changed by hand is told by the digests beside it, which sha256sum can check."""
    code, out, _ = install("grafana", main=dashboards.main)
    boards = tmp_path / "var/lib/grafana/dashboards"
    assert code == 0
    assert "systemctl restart grafana-server" in out
    assert len(list(boards.glob("*.json"))) == 8
    provisioning = tmp_path / "etc/grafana/provisioning"
    for name in ("alerting/powerhall.json", "dashboards/powerhall.yaml", "datasources/powerhall.yaml.example"):
        assert (provisioning / name).is_file(), name
    assert not (provisioning / "datasources/powerhall.yaml").exists(), "it names an address and a secret"
    assert set(actions(install("grafana", "--json", main=dashboards.main)[1]).values()) == {"same"}
    done = subprocess.run(["sha256sum", "-c", ".powerhall.sha256"], cwd=boards, capture_output=True, check=False)
    assert done.returncode == 0
    old, changed = boards / "powerhall-site.json", boards / "powerhall-job.json"
    old.write_text(json.dumps({"title": "of an earlier version"}))
    changed.write_text("{}")
    digests = boards / ".powerhall.sha256"
    digest = hashlib.sha256(old.read_bytes()).hexdigest()
    lines = [f"{digest}  {old.name}" if line.endswith(old.name) else line for line in digests.read_text().splitlines()]
    digests.write_text("\n".join(lines) + "\n")
    code, out, _ = install("grafana", "--json", main=dashboards.main)
    assert code == 1
    assert (actions(out)[old.name], actions(out)[changed.name]) == ("update", "keep")
    assert changed.read_text() == "{}"
    assert json.loads((boards / "powerhall-job.json.new").read_text())["title"] == "Powerhall: Job"
    assert actions(install("grafana", "--json", "--force", main=dashboards.main)[1])[changed.name] == "replace"


@pytest.mark.parametrize("program", [agent, optimizer])
def test_the_older_name_still_installs_and_is_not_listed(tmp_path, capsys, program):
    assert program.main(["install-units", "--root", str(tmp_path), "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert "install-units" not in program.parser().format_help()


def test_a_file_of_somebody_else_and_a_masked_unit_stay(install, tmp_path):
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).write_bytes(b"\xff not ours")
    capper = tmp_path / UNIT.replace("lease", "capper")
    capper.symlink_to("/dev/null")
    code, out, _ = install("--json")
    assert code == 1
    assert actions(out)["powerhall-lease.service"] == actions(out)["powerhall-capper.service"] == "keep"
    assert os.readlink(capper) == "/dev/null"
    assert (tmp_path / UNIT).read_bytes() == b"\xff not ours"


def test_users_are_renamed_in_units_users_folders_and_settings_and_paths_are_not(install, tmp_path):
    assert install("--user", "lease=carrier", "--user", "agent=telemetry")[0] == 0
    etc = tmp_path / "etc"
    assert "\nUser=carrier\n" in (tmp_path / UNIT).read_text()
    assert "\nGroup=carrier\n" in (etc / "systemd/system/powerhall-capper.service").read_text()
    assert re.search(r"^u telemetry\s", (etc / "sysusers.d/powerhall-agent.conf").read_text(), re.MULTILINE)
    assert '\nagent_user = "carrier"' in (etc / "powerhall/capper.toml.example").read_text()
    unit = (etc / "systemd/system/powerhall-agent.service").read_text()
    assert "StateDirectory=powerhall-agent\n" in unit
    assert "bin/powerhall-agent run" in unit
    assert install("--user", "grant=leases", "--user", "optimizer=plan", main=optimizer.main)[0] == 0
    assert "SupplementaryGroups=plan powerhall-signal\n" in (etc / "systemd/system/powerhall-shed.service").read_text()
    folders = (etc / "tmpfiles.d/powerhall-optimizer.conf").read_text()
    assert "d /var/lib/powerhall-signals 2770 leases powerhall-signal" in folders
    assert "d /etc/powerhall  " in folders


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--user", "capper=x"], "--user: 'capper=x': must be SERVICE=USER with agent, gateway, lease"),
        (["--user", "lease=root"], "--user: 'lease=root': must name a user other than root"),
        (["--user", "lease=a b"], "--user: 'lease=a b': must name a user"),
        (["printer"], "SERVICE: 'printer': must be one of agent, capper, lease, gateway"),
        (["--prefix", "venv"], "--prefix: 'venv': must be an absolute path"),
    ],
)
def test_what_is_refused_is_one_line(install, tmp_path, words, line):
    code, _, err = install(*words)
    assert code == 1
    assert line in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "etc").write_text("a file")
    assert agent.main(["install", "--root", str(tmp_path)]) == 1
    assert "cannot" in capsys.readouterr().err


def test_a_place_that_services_cannot_see_is_said(install):
    assert "services cannot see" in install("--prefix", "/root/venv")[2]


def test_only_the_named_services_are_installed(install, tmp_path):
    install("cron", main=optimizer.main)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    settings = {f"etc/powerhall/{name}.example" for name in ("optimizer.env", "scheduler.toml", "site.toml")}
    assert files == {"etc/cron.d/powerhall"} | settings


def test_the_page_names_the_commands_that_follow(root, capsys):
    page = (root / "docs/guide/install/systemd.md").read_text()
    agent.main(["install", "--json", "--dry-run", "agent"])
    follow = json.loads(capsys.readouterr().out)["next"]
    assert "\n".join(follow) in page
    optimizer.main(["install", "--json", "--dry-run", "optimizer", "rollup", "queue", "schedule", "grant"])
    for command in json.loads(capsys.readouterr().out)["next"]:
        assert not command.startswith("systemctl enable") or command in page


def test_below_another_root_every_step_that_follows_is_named(capsys):
    agent.main(["install", "--json", "--dry-run", "--root", "/mnt/my image", "agent", "capper", "lease"])
    follow = json.loads(capsys.readouterr().out)["next"]
    agent.main(["install", "--json", "--dry-run", "agent", "capper", "lease"])
    here = [command for command in json.loads(capsys.readouterr().out)["next"] if command != "systemctl daemon-reload"]
    assert len(follow) == len(here)
    assert all("'/mnt/my image'" in command for command in follow)
    assert follow[-1] == "systemctl --root='/mnt/my image' enable powerhall-agent powerhall-capper powerhall-lease"
    assert any("install -m 0400 NODE.key '/mnt/my image'/etc/powerhall/node.key" in command for command in follow)


def test_every_unit_and_setting_of_the_package_belongs_to_a_service():
    parts = (agent_install.PART, optimizer_install.PART, dashboards_install.PART)
    services = [service for part in parts for service in part.services.values()]
    assert {name for one in services for name in one.units} == {path.name for path in shipped_file("systemd").iterdir()}
    assert {name for one in services for name in one.settings} == {
        path.name for path in shipped_file("config").iterdir()
    }


def test_deploy_files_copies_every_folder(tmp_path, capsys):
    assert optimizer.main(["deploy-files", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(" files\n") == len(FOLDERS)
    for name in ("helm/powerhall/Chart.yaml", "dashboards/powerhall-site.json", "slurm/job_submit.lua"):
        assert (tmp_path / name).is_file()
    compose = tmp_path / "compose"
    assert os.access(compose / "init-secrets", os.X_OK)
    assert not (compose / "secrets").exists()
    text = (compose / "compose.yaml").read_text()
    for line in (compose / ".env").read_text().splitlines():
        name, _, value = line.partition("=")
        text = re.sub(rf"\$\{{{name}:-[^}}]*\}}", value, text)
    mounted = re.findall(r"- (\.[^:\s]*):/", text)
    assert len(mounted) >= 2
    assert [path for path in mounted if not (compose / path).exists()] == []
    assert optimizer.main(["deploy-files", "secrets", "--out", str(tmp_path)]) == 1
    assert "must be one of compose, config" in capsys.readouterr().err


@pytest.mark.slow
def test_the_wheel_holds_every_folder_and_works_outside_the_checkout(root, tmp_path):
    """Core alone: no library but msgspec is at hand, and no checkout."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        held = {name for name in archive.namelist() if name.startswith("powerhall/deploy/")}
        (scripts,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "powerhall-safecaps = powerhall_agent.capper.safe_caps:run\n" in archive.read(scripts).decode()
    for folder in FOLDERS:
        here = {path.relative_to(shipped_file(folder)) for path in shipped_file(folder).rglob("*") if path.is_file()}
        assert here
        assert {f"powerhall/deploy/{folder}/{path}" for path in here} <= held
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {place.split("/")[2] for place in settings["force-include"].values()} == set(FOLDERS)
    assert not any("secrets/" in name for name in held)
    import msgspec

    shutil.copytree(os.path.dirname(msgspec.__file__), tmp_path / "site" / "msgspec")
    script = "from powerhall_agent.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-S", "-c", script, "install", "--root", tmp_path / "host", "--json"]
    command += ["--prefix", "/srv/powerhall"]
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["files"]) == 10
    assert (tmp_path / "host" / UNIT).is_file()
    capper = (tmp_path / "host" / UNIT.replace("lease", "capper")).read_text().splitlines()
    (after_every_end,) = (line for line in capper if line.startswith("ExecStopPost="))
    assert after_every_end == "ExecStopPost=/srv/powerhall/bin/powerhall-safecaps --config /etc/powerhall/capper.toml"
