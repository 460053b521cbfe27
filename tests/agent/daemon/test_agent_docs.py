"""docs/guide/agent.md names every setting, command, option and metric, and its example is a valid file."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from powerhall.store.schema import measurement
from powerhall_agent.settings import agent_settings as settings


@pytest.fixture(scope="module")
def text(root) -> str:
    return (root / "docs" / "guide" / "agent.md").read_text()


def test_the_example_is_a_valid_file_that_shows_every_key_with_its_default(text, tmp_path):
    example = re.search(r"```toml[^\n]*\n(.*?)```", text, re.DOTALL)
    assert example is not None
    (tmp_path / "agent.toml").write_text(example[1])
    loaded = settings.load_settings(tmp_path / "agent.toml")
    assert [entry.name for entry in loaded.output] == ["site", "local"]
    assert (loaded.ship, loaded.daemon, loaded.prometheus, loaded.spool) == (
        settings.ShipSettings(),
        settings.DaemonSettings(),
        settings.PrometheusSettings(),
        settings.SpoolSettings(),
    )
    for table in ("ship", "daemon", "prometheus", "spool"):
        for field in msgspec.structs.fields(type(getattr(loaded, table))):
            assert re.search(rf"^{field.name} = ", example[1], re.MULTILINE), f"{table}.{field.name}"


def test_every_field_of_the_agent_measurement_is_explained(text):
    for field in measurement("agent").fields:
        assert f"`{field.name}`" in text, field.name


def test_every_command_and_option_is_explained_or_has_an_example(text):
    command = [str(Path(sys.executable).parent / "powerhall-agent")]
    top = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("run", "once", "doctor", "top", "spool"):
        assert f"`{name}" in text
        assert f"powerhall-agent {name}" in top
        page = subprocess.run([*command, name, "--help"], capture_output=True, text=True, check=True).stdout
        assert "examples:" in page
        assert f"powerhall-agent {name}" in page


def test_every_finding_of_doctor_that_needs_a_person_is_explained(text, root):
    source = (root / "agent" / "powerhall_agent" / "commands" / "doctor.py").read_text()
    subjects = set(re.findall(r'Finding\("(\w+)", "bad"', source))
    assert subjects <= {subject for subject in subjects if f"`{subject}: " in text}, subjects
