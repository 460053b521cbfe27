"""The units are sound and hardened: exposure at most 1.5 of 10, no privilege but the capper's."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if shutil.which("systemd-analyze") is None:
    pytest.skip("needs systemd-analyze", allow_module_level=True)

SERVICES = (
    "agent",
    "capper",
    "gateway",
    "grant",
    "lease",
    "optimizer",
    "queue",
    "rollup",
    "rollup@",
    "schedule",
    "shed",
)


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


@pytest.mark.parametrize("name", [f"powerhall-{s}.service" for s in SERVICES] + ["powerhall-optimizer.timer"])
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
    line = line.replace("$POWERHALL_ROLLUP", "--site-only").replace("%I", "hall1")
    line = line.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    assert "$" not in line
    assert "%" not in line
    done = subprocess.run(shlex.split(line), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_reader_and_writer_of_the_queue_run_around_every_round_as_its_user(units):
    texts = {
        name: (units / f"powerhall-{name}.service").read_text() for name in ("queue", "optimizer", "schedule", "shed")
    }
    assert "Before=powerhall-optimizer.service" in texts["queue"]
    assert re.search(r"^After=.*powerhall-optimizer.service", texts["schedule"], re.MULTILINE)
    for name in ("queue", "schedule"):
        assert "WantedBy=powerhall-optimizer.service" in texts[name]
    for text in texts.values():
        assert "\nUser=powerhall\n" in text
        assert "DynamicUser" not in text
        assert "StateDirectory=powerhall-optimizer" in text


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
