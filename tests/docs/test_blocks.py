"""Every code block of README and docs runs, loads, or stands in not_run.toml with the reason why it does not."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tools.reference.commands import console_commands, top_parser

from powerhall.jobs.job_files import read_jobs
from powerhall.jobs.owners import read_owners
from powerhall.runtime.settings import read_toml
from powerhall.site.reported_months import read_reported
from powerhall.site.site_file import read_site
from powerhall.site.topology import Site
from powerhall.store.hall_stores import hall_addresses
from powerhall_agent.commands.cap import CapperSettings
from powerhall_agent.facility.gateway_settings import load_facility
from powerhall_agent.facility.registry import load_map
from powerhall_agent.settings.agent_settings import load_settings
from powerhall_optimizer.inputs import round_settings
from powerhall_optimizer.schedulers import registry
from powerhall_twin.site.failures import read_failures
from rigs.pages import Block, blocks, pages

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PARSED_ONLY = "docs/reference/commands.md"
"""The examples of `--help`: their options are parsed, the pages of each part run them in context."""
LANGUAGES = {"sh", "python", "toml", "json", "yaml", "csv", "text", "lua", "ini", "systemd"}
LOADERS: dict[str, Callable[[Path], object]] = {
    "site.toml": read_site,
    "jobs.csv": read_jobs,
    "owners.csv": read_owners,
    "reported.csv": read_reported,
    "agent.toml": load_settings,
    "capper.toml": lambda path: read_toml(path, CapperSettings),
    "facility.toml": load_facility,
    "round.toml": round_settings.read_settings,
    "scheduler.toml": registry.read_settings,
    "stores.toml": lambda path: hall_addresses(f"halls:///{path}"),
    "own.toml": lambda path: load_map(path.name, path.parent),
    "failures.toml": lambda path: read_failures(path, _desk_site(path.with_name("site.toml"))),
}
TOPOLOGY = {
    "topology.conf": "SwitchName=leaf1 Nodes=gn[01-02]\nSwitchName=leaf2 Nodes=gn[03-04]\n"
    "SwitchName=spine Switches=leaf[1-2]\n",
    "nodes.json": json.dumps(
        {"items": [{"metadata": {"name": "gn01", "labels": {"nvidia.com/gpu.clique": "a.1"}}}]},
    ),
}
"""Files of a scheduler that a page names, for the nodes of the desk's site."""


def _desk_site(path: Path) -> Site:
    path.write_text(SITE)
    return read_site(path)[0]


SITE = (Path(__file__).with_name("site.toml")).read_text(encoding="utf-8")
JOBS = "job_id,gpus,duration_s,submit_s,preemptible\n" + "".join(
    f"{name},8,{hours} h,0,true\n" for name, hours in (("job1", 1), ("job2", 1), ("job3", 2), ("job42", 2))
)
DESK = """
powerhall-optimizer round --site site.toml --jobs jobs.csv --out plan.json --horizon 4h --seconds 2 --quiet
powerhall-agent run --simulate --node gn01 --site lab --hall hall1 --rack hall1/a/r1 \\
  --store sqlite:///store.db --spool spool --for 3
powerhall-optimizer queue --scheduler file --site site.toml --store sqlite:///store.db
powerhall-optimizer round --site site.toml --store sqlite:///store.db --horizon 4h --seconds 2 --quiet
"""
ALL = [block for page in pages(ROOT) for block in blocks(ROOT, page)]
NOT_RUN: list[dict[str, str]] = tomllib.loads(Path(__file__).with_name("not_run.toml").read_text())["block"]


def reason(block: Block) -> str:
    """Return why a block is not run; "" when it is."""
    lines = block.text.splitlines()
    return next((entry["why"] for entry in NOT_RUN if entry["page"] == block.page and entry["line"] in lines), "")


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands of the guides name: site, queue, plan, store, keys."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "site.toml").write_text(SITE)
    (folder / "jobs.csv").write_text(JOBS)
    for name, text in (("site.key", "5a" * 32), ("hook.token", "t" * 40)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    shell(folder, DESK)
    return folder


def shell(folder: Path, script: str) -> str:
    """Run a script as a reader would type it, and return what it prints; a command that fails ends it."""
    script = f"trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{script}"
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def runs(language: str) -> list[str]:
    """Return the pages with a block of this language that is run."""
    there = [b.page for b in ALL if b.language == language and not reason(b) and b.page != PARSED_ONLY]
    return list(dict.fromkeys(there))


def of_page(page: str) -> list[Block]:
    return [block for block in ALL if block.page == page]


@pytest.fixture
def folder(desk: Path, tmp_path: Path) -> Path:
    """A copy of the desk, beside the examples of the checkout."""
    subprocess.run(["cp", "-a", f"{desk}/.", tmp_path], check=True)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_every_block_is_fenced_and_names_a_known_language() -> None:
    wrong = [f"{b.page}:{b.line}: {b.language or 'indented'}" for b in ALL if b.indented or b.language not in LANGUAGES]
    assert wrong == []


def test_every_reason_belongs_to_a_block() -> None:
    used = {(b.page, line) for b in ALL for line in b.text.splitlines()}
    assert [entry for entry in NOT_RUN if (entry["page"], entry["line"]) not in used] == []
    assert [entry for entry in NOT_RUN if not entry["why"]] == []


def test_text_blocks_hide_no_commands() -> None:
    started = re.compile(r"^(powerhall-\w+ |make \w|pip install|docker |kubectl |systemctl |python)", re.MULTILINE)
    assert [f"{b.page}:{b.line}" for b in ALL if b.language == "text" and started.search(b.text)] == []


@pytest.mark.parametrize("page", runs("sh"))
def test_the_commands_of_a_page_run_in_order(page: str, folder: Path) -> None:
    for block in of_page(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    script = "\n".join(b.text for b in of_page(page) if b.language == "sh" and not reason(b))
    shell(folder, script)


@pytest.mark.parametrize("page", runs("python"))
def test_the_python_of_a_page_runs_in_order(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    scope: dict[str, Any] = {"__name__": "page"}
    for block in of_page(page):
        if block.language == "python" and not reason(block):
            code = block.text.replace("/dev/shm", str(folder))
            exec(compile("\n" * block.line + code, page, "exec"), scope)


def configs() -> Iterator[Any]:
    for block in ALL:
        if block.language in {"toml", "csv"} and not reason(block):
            yield pytest.param(block, id=f"{block.page}:{block.line}")


@pytest.mark.parametrize("block", tuple(configs()))
def test_a_file_of_a_page_is_read_by_its_loader(block: Block, tmp_path: Path) -> None:
    name = Path(block.title.removesuffix(" (part)")).name
    assert name in LOADERS, f"{block.page}:{block.line}: title is {block.title!r}, must be one of {', '.join(LOADERS)}"
    (tmp_path / name).write_text(whole_site(block.text) if block.partial else block.text)
    if name == "facility.toml" and "own.toml" in block.text:
        (tmp_path / "own.toml").write_text(next(b.text for b in of_page(block.page) if b.title == "own.toml"))
    for match in re.finditer(r'"([\w/.-]+\.csv)"', block.text):
        (tmp_path / match[1]).write_text("time,power_w,usd_per_mwh,dry_bulb_c,wet_bulb_c\n2026-01-01,1e6,30,20,15\n")
    for file in set(re.findall(r'^file = "(.+?)"', block.text, re.MULTILINE)) & TOPOLOGY.keys():
        (tmp_path / file).write_text(TOPOLOGY[file])
    LOADERS[name](tmp_path / name)


def whole_site(part: str) -> str:
    """Return the desk's site with the tables of `part` laid over it, as TOML."""
    whole = tomllib.loads(SITE)
    for key, value in tomllib.loads(part).items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    if "events" in whole["site"]:
        whole["site"].pop("events")  # the shed service makes that file
    return "\n".join(f"{json.dumps(key)} = {_toml(value)}" for key, value in whole.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@pytest.mark.parametrize("language", ["json", "yaml"])
def test_json_and_yaml_are_read(language: str) -> None:
    read = {"json": msgspec.json.decode, "yaml": yaml.safe_load}[language]
    for block in ALL:
        if block.language == language:
            assert read(block.text), f"{block.page}:{block.line}"


def command_lines() -> Iterator[tuple[Block, list[str]]]:
    """Yield every call of a Powerhall command in the blocks that are not run, as its arguments."""
    for block in ALL:
        if block.language == "sh" and (reason(block) or block.page == PARSED_ONLY):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = re.split(r"(?<=\s)[|<>&]+(?=\s|$)|;", re.sub(r"\s#.*", "", line))
                for part in words:
                    found = re.match(r"\s*(?:\S*/bin/)?(powerhall-[a-z]+ .*)", part)
                    if found and "..." not in found[1]:
                        yield block, shlex.split(found[1])


def test_commands_that_are_not_run_are_accepted_by_their_parsers() -> None:
    parsers = {name: top_parser(name, entry) for name, entry in console_commands(ROOT).items()}
    wrong = []
    for block, (name, *arguments) in command_lines():
        if name in parsers and arguments and not arguments[0].startswith("--version"):
            try:
                parsers[name].parse_args(arguments)
            except SystemExit as end:
                if end.code:
                    wrong.append(f"{block.page}:{block.line}: {name} {' '.join(arguments)}")
    assert wrong == []
