"""A ledger that is lost, damaged, old or cannot be: every node counts at its highest."""

import json
import os
import socket
import time

import pytest

from rigs.confirmed import confirmed_ledger

DAMAGES = {
    "truncated": lambda body: body[: len(body) // 2],
    "not UTF-8": lambda body: b'{"site": "\xff"}',
    "empty": lambda body: b"",
    "a list": lambda body: b"[]",
    "deep": lambda body: b"[" * 100_000,
    "not finite": lambda body: body.replace(b'"longest_s":', b'"longest_s":1e999,"x":'),
    "huge": lambda body: body.replace(b'"sequence":', b'"sequence":99999999999999999999'),
    "a text for a number": lambda body: body.replace(b'"cap_w":', b'"cap_w":"lots",'),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_ledger_is_kept_and_counts_every_node_at_its_highest(desk, kind):
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.lease()
    damaged = DAMAGES[kind](desk.ledger.read_bytes())
    desk.ledger.write_bytes(damaged)
    figures = desk.lease()
    assert desk.held_w(time.time()) == sum(desk.nodes.values()), "all are brought to their safe caps"
    assert figures["unknown"] == len(desk.nodes)
    assert "damaged and kept as" in figures["note"]
    assert "Traceback" not in desk.log
    (kept,) = desk.folder.glob("ledger.json.damaged-*")
    assert kept.read_bytes() == damaged
    assert desk.lease()["unknown"] == len(desk.nodes), "and that is remembered"


@pytest.mark.parametrize("kind", ["lost", "old copy", "another ledger"])
def test_a_ledger_that_lacks_leases_counts_every_node_at_its_highest(desk, kind):
    confirmed_ledger(desk.ledger, desk.nodes)
    known_s = time.time() + 301.0
    desk.lease("--for", "5 min")
    copy = desk.ledger.read_bytes()
    desk.lease("--for", "10 min")
    if kind == "lost":
        desk.ledger.unlink()
    elif kind == "old copy":
        desk.ledger.write_bytes(copy)
    else:
        desk.ledger = desk.folder / "ledger2.json"
    figures = desk.lease()
    assert figures["unknown"] == len(desk.nodes)
    at_s = known_s if kind == "old copy" else time.time()
    assert desk.held_w(at_s) == sum(desk.nodes.values()), "but for leases that the old copy knows, to their end"


def test_a_ledger_older_than_its_longest_lease_is_not_believed(desk):
    desk.lease()
    desk.change_ledger(lambda state: state | {"time_s": state["time_s"] - 1000.0})
    assert "longer than its longest lease" in desk.lease()["note"]


@pytest.mark.parametrize(
    "change",
    [
        {"time_s": time.time() + 7200.0},
        {"time_s": time.time() - 7200.0, "longest_s": 1e30},
        {"unknown_until_s": time.time() + 1e8},
        {"entries": {"another": [{"sequence": 1, "cap_w": 10**8, "expires_s": 1e30}]}},
        {"sequence": 1 << 53},
        {"sequence": (1 << 52) - 1},
        {"sequence": int((time.time() + 3 * 86_400) * 1000)},
    ],
    ids=[
        "from the future",
        "endless leases",
        "unknown for years",
        "a lease for ever",
        "numbers used up",
        "numbers nearly used up",
        "numbers days ahead",
    ],
)
def test_a_ledger_that_cannot_be_counts_every_node_at_its_highest_for_an_hour(desk, change):
    desk.lease()
    desk.change_ledger(lambda state: state | change)
    figures = desk.lease()
    assert figures["unknown"] == len(desk.nodes)
    assert figures["leases"] == len(desk.nodes), "all are brought to their safe caps"
    state = json.loads(desk.ledger.read_bytes())
    assert state["unknown_until_s"] <= time.time() + 3600.0
    assert state["sequence"] < 1 << 52
    assert desk.lease()["unknown"] == len(desk.nodes), "and that is remembered"


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "sparse"])
def test_a_ledger_that_is_no_file_or_endless_is_set_aside_as_a_damaged_one(desk, kind):
    if kind == "sparse":
        with desk.ledger.open("wb") as file:
            file.truncate(2 << 30)
    elif kind == "socket":
        desk.monkeypatch.chdir(desk.folder)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(desk.ledger.name)
    else:
        (os.mkfifo if kind == "pipe" else os.mkdir)(desk.ledger)
    says = "larger than 256 MiB" if kind == "sparse" else "must be a regular file"
    trial = desk.lease("--dry-run")
    assert f"ledger.json: damaged: {says}" in trial["note"], "and nothing is said to be kept"
    figures = desk.lease()
    assert "damaged and kept as ledger.json.damaged-" in figures["note"]
    assert says in figures["note"]
    assert figures["unknown"] == len(desk.nodes)
    assert figures["leases"] == len(desk.nodes), "all are brought to their safe caps"
    assert len([*desk.folder.glob("ledger.json.damaged-*")]) == 1
    assert "note" not in desk.lease() or "damaged" not in desk.lease()["note"]


def test_a_new_site_knows_its_leases_and_first_says_so_where_a_lock_is_left(desk):
    figures = desk.lease()
    assert (figures["unknown"], figures["unconfirmed"]) == (0, len(desk.nodes))
    assert "until their capper confirms a lease" in figures["note"]
    desk.ledger.unlink()
    assert desk.lease("--first")["unknown"] == 0


def test_on_a_new_site_no_cap_rises_beside_nodes_that_no_capper_has_confirmed(desk):
    desk.lease()
    assert desk.held_w(time.time()) == sum(desk.nodes.values())
    desk.change_ledger(lambda state: state | {"confirmed": list(desk.nodes)})
    figures = desk.lease()
    assert desk.held_w(time.time()) > sum(desk.nodes.values())
    assert figures["unconfirmed"] == 0
    assert "note" not in figures


def test_a_ledger_of_an_older_version_has_no_seal_and_counts_every_node_at_its_highest(desk):
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.ledger.write_bytes(desk.ledger.read_bytes().split(b',"seal"')[0] + b"}")
    figures = desk.lease()
    assert figures["unknown"] == len(desk.nodes)
    assert "seal: is missing: an older version wrote the file" in figures["note"]
