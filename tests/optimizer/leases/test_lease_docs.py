"""docs/guide/leases.md and shed.md: their configs and examples are valid; every option is named."""

import re
import tomllib

import msgspec
import pytest

from powerhall.site.curtailment import parse_ramp, read_events
from powerhall_agent.commands.cap import CapperSettings
from powerhall_optimizer.cli import parser
from powerhall_optimizer.shed.signals import _SignalRow, parse_signals

NOW_S = 1_782_900_000.0  # before the event of the page


@pytest.fixture(scope="module")
def pages(root):
    return {name: (root / "docs" / "guide" / f"{name}.md").read_text() for name in ("leases", "shed")}


def test_the_cappers_config_is_valid(pages):
    text = re.search(r'```toml title="capper.toml"\n(.*?)```', pages["leases"], re.DOTALL)[1]
    settings = msgspec.convert(tomllib.loads(text), CapperSettings)
    defaults = CapperSettings("", "", "")
    assert (settings.memory, settings.restore_on_stop) == (defaults.memory, defaults.restore_on_stop)
    assert settings.node == "gn01"


def test_the_event_of_the_page_is_valid_and_every_field_is_named(pages):
    text = re.search(r"```json[^\n]*\n(.*?)```", pages["shed"], re.DOTALL)[1]
    (signal,) = parse_signals(text.encode(), "page", "phx", NOW_S)
    assert (signal.share, signal.end_s - signal.start_s, signal.within_s) == (0.3, 7200.0, 10.0)
    for field in msgspec.structs.fields(_SignalRow):
        assert f"`{field.name}`" in pages["shed"], field.name


def test_the_site_file_of_the_page_names_events_and_ramps(pages, tmp_path):
    site = tomllib.loads(re.search(r"```toml[^\n]*\n(.*?)```", pages["shed"], re.DOTALL)[1])["site"]
    assert parse_ramp(site["ramp_up"]) < parse_ramp(site["ramp_down"])
    (tmp_path / "events.json").write_text("[]")
    assert read_events(tmp_path / "events.json", "phx") == ()


@pytest.mark.parametrize(("command", "page"), [("shed", "shed"), ("lease", "leases")])
def test_every_option_is_named(pages, command, page):
    commands = next(action for action in parser()._actions if getattr(action, "choices", None))
    for action in commands.choices[command]._actions:
        name = action.option_strings[-1]
        if name not in ("--help", "--json", "--settings", "--dry-run"):
            assert name in pages[page], name
