"""The bill command: owners, forms of output, wrong periods, empty stores."""

import csv
import io
import json
from pathlib import Path

import pytest

from powerhall.jobs.owners import Owner, OwnerRule, Owners, read_owners
from powerhall.runtime.errors import Rejected
from powerhall.store import open_store
from powerhall_optimizer.billing.bill_output import bill_csv, bill_data
from powerhall_optimizer.cli import main
from rigs.billing import HOUR, NOON, BillRig, table


def test_owners_are_found_by_job_user_and_project(tmp_path: Path) -> None:
    (tmp_path / "owners.csv").write_text(
        "job,user_hash,project,tenant\n17,,vision,\nteam-a/*,,chat,acme\n,u9,batch,\n,,vision,globex\n,,batch,acme\n*,u1,own,\n"
    )
    owners = read_owners(tmp_path / "owners.csv")
    assert owners.of("17", "u1") == Owner("vision", "globex")
    assert owners.of("team-a/pod-3") == Owner("chat", "acme")
    assert owners.of("99", "u9") == Owner("batch", "acme")
    assert owners.of("99", "u1") == Owner("own", "-")
    assert owners.of("99") == Owner("-", "-")
    assert owners.of("99", project="vision") == Owner("vision", "globex")
    assert Owners((OwnerRule("a*", project="first"), OwnerRule("ab", project="late"))).of("ab").project == "first"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("who,pays\n1,2\n", "header: 'who,pays': must have columns among job, user_hash, project, tenant"),
        ("job,project\n,vision\n", "line 2: job: '': must be given, or user_hash, or project and tenant"),
        ("job,project\n17,\n", "line 2: project: '': must be given, or tenant"),
    ],
)
def test_a_wrong_file_of_owners_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "owners.csv").write_text(text)
    with pytest.raises(Rejected) as refused:
        read_owners(tmp_path / "owners.csv")
    assert line in str(refused.value)


# The command.


def test_the_bill_of_the_command_in_all_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = BillRig.made(tmp_path, more='[billing]\nowners = "owners.csv"\n')
    (tmp_path / "owners.csv").write_text("job,project,tenant\n1,vision,acme\n2,chat,acme\n")
    rig.meter("a", NOON, NOON + HOUR, it_power_w=5000.0, facility_power_w=6000.0)
    for job in ("1", "2", "3"):
        rig.interval(job, "n1", int(job), (NOON, NOON + HOUR), 700.0 * HOUR, user_hash="u")
    options = ["bill", "--site", f"{tmp_path}/site.toml", "--store", f"sqlite:///{tmp_path}/power.db"]
    options += ["--from", str(NOON), "--to", "2026-11-01T14:00+01:00"]
    assert main([*options, "--by", "tenant", "--csv", f"{tmp_path}/bill.csv"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("lab, 2026-11-01T13:00+01:00 to 2026-11-01T14:00+01:00, by tenant\n")
    assert [row.split()[0] for row in text.splitlines()[2:8]] == [
        "acme",
        "-",
        "idle",
        "unallocated",
        "assumed",
        "meter",
    ]
    rows = table(tmp_path / "bill.csv")
    assert float(rows[0]["energy_kwh"]) == pytest.approx(2 * 0.97 * 1.2)
    lines = [float(row["energy_kwh"]) for row in rows]
    assert sum(lines[:-1]) == pytest.approx(lines[-1]) == pytest.approx(6.0)
    assert main([*options, "--json", "--html", f"{tmp_path}/bill.html"]) == 0
    page = (tmp_path / "bill.html").read_text()
    assert "Bill of lab" in page
    assert "<td>idle GPUs</td>" in page
    told = json.loads(capsys.readouterr().out)
    assert {entry["job"]: entry["tenant"] for entry in told["lines"]} == {"1": "acme", "2": "acme", "3": "-"}
    assert told["meter"]["energy_kwh"] == 6.0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--month", "2026-13"], "--month: '2026-13': must be a month, such as '2026-11'"),
        (["--month", "2026-11", "--from", "0"], "--month: '2026-11': must stand without --from and --to"),
        (["--from", "2026-11-01"], "--from: '2026-11-01': must be given with --to, or --month instead"),
        (
            ["--from", "2026-11-02", "--to", "2026-11-01"],
            "--to: '2026-11-01': must be after --from, by 400 days at most",
        ),
        (
            ["--from", "soon", "--to", "2026-11-01"],
            "--from: 'soon': must be seconds since the epoch or an ISO 8601 time",
        ),
    ],
)
def test_a_wrong_period_is_one_line(
    tmp_path: Path, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    BillRig.made(tmp_path)
    assert main(["bill", "--site", f"{tmp_path}/site.toml", "--store", f"sqlite:///{tmp_path}/power.db", *options]) == 1
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_no_store_is_made_by_a_bill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BillRig.made(tmp_path).store.close()
    options = [
        "bill",
        "--site",
        f"{tmp_path}/site.toml",
        "--month",
        "2026-10",
        "--store",
        f"sqlite:///{tmp_path}/no.db",
    ]
    assert main(options) == 1
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "no.db").exists()


def test_an_empty_store_gives_a_bill_of_gaps(tmp_path: Path) -> None:
    rig = BillRig.made(tmp_path)
    bill = rig.bill(NOON, NOON + HOUR)
    assert [gap.hours for gap in bill.gaps] == [1.0, 1.0]
    data = bill_data(bill, "job", None)
    assert data["meter"] == {**data["meter"], "energy_kwh": 0.0, "pue": None}  # type: ignore[dict-item]
    assert len(list(csv.reader(io.StringIO(bill_csv(bill, "job"))))) == 5
    open_store(f"sqlite:///{tmp_path}/power.db").close()
