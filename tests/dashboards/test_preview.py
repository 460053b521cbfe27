"""The preview without a browser: its choices, messages and formats of values."""

import json
import re
from pathlib import Path

import pytest

from powerhall.store import open_store
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.cli import main
from powerhall_dashboards.preview.answers import choose
from powerhall_dashboards.preview.text import age, value


def test_the_preview_chooses_the_hottest_node_and_the_job_of_most_energy(filled_sqlite: object) -> None:
    chosen = choose(filled_sqlite.store, filled_sqlite.end_s, {})
    assert chosen["site"] == ("phx",)
    assert chosen["job"][0].startswith("job-10")
    hottest = filled_sqlite.store.query(
        BOARDS[3].panels[0].queries[0].bind({"node": chosen["node"]}), filled_sqlite.end_s - 600, filled_sqlite.end_s
    )
    others = filled_sqlite.store.query(
        BOARDS[3].panels[0].queries[0].bind({}), filled_sqlite.end_s - 600, filled_sqlite.end_s
    )
    assert max(row.number("hottest") for row in hottest) == max(row.number("hottest") for row in others)


def test_halls_without_a_power_limit_are_chosen_by_their_it_power(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'site.db'}")
    for hall, power_w in (("a", 5.0), ("b", 7.0), ("c", 6.0)):
        store.write(f"hall_10s,site=s,hall={hall} it_power_w={power_w} 1790000000000\n".encode())
    chosen = choose(store, 1_790_000_000.0, {"site": ("s",)})
    assert chosen["hall"] == ("b",)
    store.write(b"hall_10s,site=s,hall=c headroom_w=1.0 1790000000000\n")
    assert choose(store, 1_790_000_000.0, {"site": ("s",)})["hall"] == ("c",)
    store.close()


def test_sqlite_and_influxdb_give_the_same_page(filled_sqlite: object, filled_influx: object, tmp_path: Path) -> None:
    pages = []
    for filled in (filled_sqlite, filled_influx):
        out = tmp_path / filled.url[:6]
        assert (
            main(["preview", "--store", filled.url, "--out", str(out), "--var", "job=job-101", "--var", "node=n2"]) == 0
        )
        pages.append((out / "index.html").read_text())
    first, second = (re.sub(r"<script>.*", "", page, flags=re.DOTALL) for page in pages)
    assert len(first) > 50_000
    numbers = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
    assert numbers.sub("", first) == numbers.sub("", second)
    for left, right in zip(numbers.findall(first), numbers.findall(second), strict=True):
        assert float(left) == pytest.approx(float(right), rel=1e-6)


def test_panels_without_data_are_named_and_an_empty_store_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'site.db'}"
    store = open_store(url)
    assert main(["preview", "--store", url, "--out", str(tmp_path)]) == 1
    assert "the store holds no telemetry yet" in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()
    store.write(b"site_10s,site=s it_power_w=5.0,facility_power_w=6.0 1790000000000\n")
    store.close()
    assert main(["preview", "--store", url, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "Powerhall: Optimizer: The plan: no data" in result["empty"]
    assert "Powerhall: Site overview: Power at the meter: no data" not in result["empty"]
    assert main(["preview", "--store", url, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len({line.split(": no data: ")[0] for line in lines}), "one line for each dashboard"
    assert any(line.startswith("Powerhall: Optimizer: no data: ") and "The plan" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--var", "node"], "--var: 'node': must be NAME=VALUE"),
        (["--end", "noon"], "--end: 'noon'"),
        (["--store", "sqlite:////absent/store.db"], "folder /absent does not exist"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'site.db'}"
    assert main(["preview", "--store", url, "--out", str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (1_234_567.0, "W", "1.23 MW"), (-500.0, "W", "-500 W"), (0.0, "W", "0 W"), (999_999.0, "W", "1,000 kW"),
        (61.25, "degC", "61.25 °C"),
        (12_345.0, "", "12,345"), (0.004, "", "0.004"), (None, "W", ""), ("ok", "", "ok"), (0.0, "time", "–"),
        (1.79e12, "time", "2026-09-21 14:13:20"), (5e9, "B", "5 GB"), (3.5e6, "J", "3.50 MJ"),
    ],
)  # fmt: skip
def test_values_are_written_as_people_read_them(number: float | str | None, unit: str, text: str) -> None:
    assert value(number, unit) == text


def test_ages_are_written_as_people_read_them() -> None:
    assert [age(seconds) for seconds in (-3, 59, 60, 5400, 200_000)] == [
        "0 s ago",
        "59 s ago",
        "1 min ago",
        "1.5 h ago",
        "2.31 d ago",
    ]


@pytest.mark.parametrize("command", [[], ["build"], ["publish"], ["verify"], ["diff"], ["init-store"], ["preview"]])
def test_every_command_has_help_with_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_a_wrong_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["prevue"])
    assert end.value.code == 2
    capsys.readouterr()


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stroe.db"
    assert main(["preview", "--store", f"sqlite:///{path}", "--out", str(tmp_path / "out")]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_variable_is_refused_with_the_known_ones(
    filled_sqlite: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", "--store", filled_sqlite.url, "--out", str(tmp_path), "--var", "nod=n1"]) == 1
    assert "must name one of gpu, hall, job, node, plan, rack, site" in capsys.readouterr().err
