"""The JSON against Grafana's own TypeScript types of three major versions, under `tsc --strict`.

The types come from npm (tests/dashboards/typescript, locked); without node, npm or the registry the tests skip.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from powerhall_dashboards.build import built

FOLDER = Path(__file__).parent / "typescript"
VERSIONS = (11, 12, 13)
FLAGS = ["--strict", "--noEmit", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]

# JSON has an enum's value where TypeScript wants its member, and the data source's own fields in a query.
AS_JSON = """
type Json<T> = T extends string ? `${T}`
  : T extends (infer U)[] ? Json<U>[]
  : T extends { refId: string } ? { [K in keyof T]: Json<T[K]> } & { [own: string]: unknown }
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;
"""


@pytest.fixture(scope="module")
def types() -> Path:
    """The folder with TypeScript and Grafana's types, installed from the lock file where they are not yet."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if not (npm and node):
        pytest.skip("node and npm not installed")
    if not (FOLDER / "node_modules" / "typescript").is_dir():
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        try:
            done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm ci did not end within two minutes")
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr.strip()[-200:]}")
    return FOLDER / "node_modules"


def compile_all(types: Path, folder: Path, sources: dict[str, str]) -> str:
    """Compile the sources and return the compiler's errors."""
    (folder / "node_modules").symlink_to(types, target_is_directory=True)
    (folder / "package.json").write_text('{"type": "module"}')
    for name, text in sources.items():
        (folder / name).write_text(text)
    command = [shutil.which("node"), str(types / "typescript/bin/tsc"), *FLAGS, *sources]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode == 0) == (done.stdout == ""), done.stderr
    return done.stdout


def source(version: int, data: dict) -> str:
    head = f'import type {{ Dashboard }} from "grafana-schema-{version}";'
    return f"{head}\n{AS_JSON}\nexport const made: Json<Dashboard> = {json.dumps(data, indent=1)};\n"


@pytest.mark.slow
def test_every_dashboard_has_grafanas_types_of_three_major_versions(types: Path, tmp_path: Path) -> None:
    boards = {Path(name).stem: json.loads(text) for name, text in built().items() if name.startswith("dashboards/")}
    sources = {f"{uid}-{version}.ts": source(version, data) for uid, data in boards.items() for version in VERSIONS}
    assert compile_all(types, tmp_path, sources) == ""


@pytest.mark.slow
def test_a_wrong_type_is_caught_in_each_version(types: Path, tmp_path: Path) -> None:
    data = json.loads(built()["dashboards/grafana/powerhall-site.json"])
    data["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative"
    complaints = compile_all(types, tmp_path, {f"wrong-{version}.ts": source(version, data) for version in VERSIONS})
    for version in VERSIONS:
        assert f"wrong-{version}.ts" in complaints
