"""The units are sound and hardened: exposure at most 1.5 of 10, no privilege but the capper's."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from powerhall.runtime.settings import read_toml
from powerhall.site.site_file import read_site
from powerhall_agent.commands.cap import CapperSettings
from powerhall_agent.facility.gateway_settings import load_facility
from powerhall_agent.settings.agent_settings import load_settings
from powerhall_optimizer.schedulers import registry

if shutil.which("systemd-analyze") is None:
    pytest.skip("needs systemd-analyze", allow_module_level=True)

SERVICES = (
    "agent",
    "bills",
    "capper",
    "gateway",
    "grant",
    "lease",
    "optimizer",
    "pages",
    "queue",
    "rollup",
    "rollup@",
    "schedule",
    "shed",
)

TIMERS = ["powerhall-bills.timer", "powerhall-optimizer.timer"]
TOKEN = ["store-token"]
USERS = {
    "agent": ("powerhall-agent", TOKEN),
    "bills": ("powerhall-rollup", TOKEN),
    "capper": ("root", []),
    "gateway": ("powerhall-gateway", [*TOKEN, "meters"]),
    "grant": ("powerhall-grant", [*TOKEN, "site.key"]),
    "lease": ("powerhall-lease", TOKEN),
    "optimizer": ("powerhall", TOKEN),
    "pages": ("powerhall-pages", [*TOKEN, "pages-token"]),
    "queue": ("powerhall-schedule", TOKEN),
    "rollup": ("powerhall-rollup", TOKEN),
    "rollup@": ("powerhall-rollup", TOKEN),
    "schedule": ("powerhall-schedule", []),
    "shed": ("powerhall-grant", [*TOKEN, "site.key", "shed-token"]),
}
"""Service -> its user, and the secrets that it is handed."""
FILES = ("passwd", "group")


@pytest.fixture
def units(root):
    return root / "deploy" / "systemd"


def analyze(*args):
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, args)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_exposure_stays_within_one_and_a_half(units, name):
    code, text = analyze("security", "--offline=true", "--threshold=15", units / f"powerhall-{name}.service")
    assert code == 0, text.splitlines()[-1]


@pytest.mark.parametrize("name", [f"powerhall-{s}.service" for s in SERVICES] + TIMERS)
def test_systemd_analyze_accepts_every_unit(units, tmp_path, name):
    for unit in units.glob("powerhall-*.*"):
        text = re.sub(r"/opt/powerhall/bin/powerhall-\w+", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    code, text = analyze("verify", "--man=no", tmp_path / name)
    assert code == 0, text
    assert name not in text, text


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_capper_keeps_a_capability_and_only_it_has_no_network(units, name):
    text = (units / f"powerhall-{name}.service").read_text()
    kept = re.search(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    assert kept is not None
    assert kept[1] == ("CAP_SYS_ADMIN" if name == "capper" else "")
    assert ("PrivateNetwork=yes" in text) == (name == "capper")


def test_every_service_of_the_folder_is_tested(units):
    assert {path.name for path in units.glob("*.service")} == {f"powerhall-{name}.service" for name in SERVICES}


@pytest.mark.parametrize("name", SERVICES)
def test_commands_of_units_are_ones_that_the_programs_take(units, tmp_path, name):
    """Without its files a command is refused in one line (1), not as a wrong usage (2)."""
    text = (units / f"powerhall-{name}.service").read_text().replace("\\\n", "")
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    line = line.replace("/opt/powerhall/bin", str(Path(sys.executable).parent))
    line = re.sub(r"/(etc|var/lib)/powerhall[-a-z]*", str(tmp_path), line)
    for variable, value in (("STORE", f"sqlite:///{tmp_path}/absent/x.db"), ("NODE", "n1"), ("SCHEDULER", "file")):
        line = line.replace(f"${{POWERHALL_{variable}}}", value)
    line = line.replace("$POWERHALL_ROLLUP", "--site-only").replace("$POWERHALL_PAGES", "").replace("%I", "hall1")
    line = line.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    assert "$" not in line
    assert "%" not in line
    done = subprocess.run(shlex.split(line), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_reader_and_writer_of_the_queue_run_around_every_round(units):
    texts = {name: (units / f"powerhall-{name}.service").read_text() for name in ("queue", "schedule", "grant")}
    assert "Before=powerhall-optimizer.service" in texts["queue"]
    for name in ("schedule", "grant"):
        assert re.search(r"^After=.*powerhall-optimizer.service", texts[name], re.MULTILINE)
    for text in texts.values():
        assert "WantedBy=powerhall-optimizer.service" in text


def values(text, key):
    return [word for line in re.findall(rf"^{key}=(.*)$", text, re.MULTILINE) for word in line.split()]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_runs_as_a_named_user_and_holds_its_own_secrets_alone(units, name):
    text = (units / f"powerhall-{name}.service").read_text()
    assert values(text, "User") == [USERS[name][0]]
    assert [word.split(":")[0] for word in values(text, "LoadCredential")] == USERS[name][1]
    assert "DynamicUser" not in text


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_never_gives_up_on_a_service_that_ends_again_and_again(units, name):
    """By default the fifth end within ten seconds is the last: too few for a pause of 2 s between the starts."""
    text = (units / f"powerhall-{name}.service").read_text()
    if values(text, "Restart") == ["always"]:
        assert values(text, "StartLimitIntervalSec") == ["0"] or float(values(text, "RestartSec")[0]) > 10 / 5


def test_users_and_groups_of_all_units_come_with_them(root, units, tmp_path):
    """systemd-sysusers makes each of them in an empty root."""
    (tmp_path / "etc").mkdir()
    for conf in sorted((root / "deploy" / "sysusers.d").glob("*.conf")):
        done = subprocess.run(
            ["systemd-sysusers", f"--root={tmp_path}", conf], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    made = {name: {line.split(":")[0] for line in (tmp_path / "etc" / name).read_text().splitlines()} for name in FILES}
    for unit in units.glob("*.service"):
        text = unit.read_text()
        assert set(values(text, "User")) <= made["passwd"] | {"root"}, unit.name
        assert set(values(text, "Group") + values(text, "SupplementaryGroups")) <= made["group"], unit.name
    for conf in (root / "deploy" / "tmpfiles.d").glob("*.conf"):
        lines = [line.split() for line in conf.read_text().splitlines() if not line.startswith("#")]
        assert {line[3] for line in lines} <= made["passwd"] | {"root"}
        assert {line[4] for line in lines} <= made["group"] | {"root"}


def test_the_carrier_and_nobody_else_is_in_the_group_of_the_cappers_socket(units):
    capper, carrier = ((units / f"powerhall-{name}.service").read_text() for name in ("capper", "lease"))
    (group,) = values(capper, "Group")
    assert values(carrier, "User") == [group]
    assert values(capper, "RuntimeDirectoryMode") == ["0750"]
    for name in set(SERVICES) - {"capper", "lease"}:
        text = (units / f"powerhall-{name}.service").read_text()
        assert group not in values(text, "User") + values(text, "Group") + values(text, "SupplementaryGroups")


def test_example_settings_are_ones_that_the_programs_take(root, tmp_path):
    config = root / "deploy" / "config"
    loaders = {
        "agent.toml": load_settings,
        "capper.toml": lambda path: read_toml(path, CapperSettings),
        "facility.toml": load_facility,
        "scheduler.toml": registry.read_settings,
        "site.toml": read_site,
    }
    assert {path.name for path in config.iterdir()} == {*loaders, "lease.env", "optimizer.env", "pages.env"}
    for name, load in loaders.items():
        load(config / name)
    assert read_toml(config / "capper.toml", CapperSettings).agent_user == USERS["lease"][0]
    for name in ("lease.env", "optimizer.env", "pages.env"):
        done = subprocess.run(
            ["sh", "-euc", f'. {config / name}; printf %s "$POWERHALL_STORE"'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "token_file=$CREDENTIALS_DIRECTORY/store-token" in done.stdout


def test_no_unit_carries_a_secret_in_its_command_or_environment(units):
    for unit in units.iterdir():
        assert not re.search(r"(token|password|secret)=[^\s/]", unit.read_text(), re.IGNORECASE), unit


def test_the_timer_and_the_cron_line_fire_every_five_minutes(units):
    code, text = analyze("calendar", "--iterations=1", "*:0/5")
    assert code == 0, text
    assert "OnCalendar=*:0/5" in (units / "powerhall-optimizer.timer").read_text()
    lines = [line for line in (units / "powerhall.cron").read_text().splitlines() if line.startswith("*/5 * * * * ")]
    assert len(lines) == 1
    assert "%" not in lines[0]  # cron would turn it into a newline
