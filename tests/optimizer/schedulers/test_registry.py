"""A scheduler registers beside its code: a new one takes one module in the folder."""

import json

import pytest

from powerhall.plan.plan import write_plan
from powerhall.runtime.errors import Rejected
from powerhall_optimizer import schedulers
from powerhall_optimizer.cli import main
from powerhall_optimizer.schedulers import registry
from rigs.plans import greedy_plan, small_site

MODULE = """
import msgspec

from powerhall_optimizer.schedulers.base import Queue, Scheduler, WriteReport


class PbsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: str = "pbs1"
    may_stop: bool = False


class Reader:
    def read(self):
        return Queue(0, (), ("gn01",))


class Writer:
    def __init__(self, settings):
        self.settings = settings

    def apply(self, plan, *, dry_run=False):
        stops = int(self.settings.may_stop)
        return WriteReport(f"pbs at {self.settings.server}", plan.plan_id, dry_run, unchanged=stops)


SCHEDULER = Scheduler(
    name="pbs_test",
    settings=PbsSettings,
    needs_site=False,
    reader=lambda settings, site: Reader(),
    writer=Writer,
    may_stop=lambda settings: msgspec.structs.replace(settings, may_stop=True),
)
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    folder = tmp_path / "schedulers"
    folder.mkdir()
    (folder / "pbs_test.py").write_text(MODULE)
    monkeypatch.setattr(schedulers, "__path__", [*schedulers.__path__, str(folder)])
    registry._registered.cache_clear()
    yield
    registry._registered.cache_clear()


def test_the_schedulers_of_the_folder_are_registered():
    assert set(registry.scheduler_names()) == {"file", "kubernetes", "slurm"}
    assert set(registry.read_settings(None)) == {"file", "kubernetes", "slurm"}


@pytest.mark.usefixtures("planted")
def test_a_module_in_the_folder_is_a_scheduler_of_every_command(tmp_path, capsys):
    (tmp_path / "scheduler.toml").write_text('[pbs_test]\nserver = "pbs2"\n')
    options = ["--scheduler", "pbs_test", "--settings", str(tmp_path / "scheduler.toml")]
    write_plan(greedy_plan(small_site(["gn01"]), (), start_s=0, slot_s=60, budget_w=[60_000]), tmp_path / "plan.json")
    assert main(["queue", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["down_nodes"] == ["gn01"]
    assert main(["schedule", *options, "--plan", str(tmp_path / "plan.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scheduler"] == "pbs at pbs2"
    report = registry.open_writer("pbs_test", None, may_stop=True).apply(
        greedy_plan(small_site(["gn01"]), (), start_s=0, slot_s=60, budget_w=[60_000])
    )
    assert report.unchanged == 1, "an emergency shed may stop jobs whatever the settings are"


@pytest.mark.usefixtures("planted")
def test_wrong_settings_of_it_are_refused_by_name(tmp_path):
    (tmp_path / "scheduler.toml").write_text("[pbs_test]\nserver = 3\n")
    with pytest.raises(Rejected, match=r"pbs_test\.server"):
        registry.read_settings(tmp_path / "scheduler.toml")
