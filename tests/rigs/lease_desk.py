"""The files of a planner host and its lease command."""

import json
import time

import msgspec
import pytest

from powerhall.lease import node_key, open_lease
from powerhall.plan.plan import write_plan
from powerhall.store import open_store
from powerhall.timeseries import Series
from powerhall_agent.capper.carrier import newest_lease
from powerhall_optimizer.cli import main
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.leases.ledger_file import with_seal

KEY = bytes(range(32))


class Desk:
    """The files of a planner host, and its lease command."""

    def __init__(self, folder, plan, capsys, monkeypatch):
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.nodes = safe_caps_w(plan.snapshot.site)
        self.url = f"sqlite:///{folder}/s.db"
        self.ledger = folder / "ledger.json"
        (folder / "site.key").write_text(KEY.hex())
        self.put(plan)

    def put(self, plan):
        self.plan = plan
        write_plan(plan, self.folder / "plan.json")

    def lease(self, *more, code=0):
        """Run the command; return its figures, or its one line where it refuses."""
        options = ["--plan", self.folder / "plan.json", "--store", self.url, "--ledger", self.ledger]
        options += ["--site-key", self.folder / "site.key", *more]
        assert main(["lease", *map(str, options)]) == code
        out, err = self.capsys.readouterr()
        self.log = err
        return json.loads(out.splitlines()[-1]) if code == 0 else err.splitlines()[-1]

    def change_ledger(self, change):
        """Change what the ledger says, and seal it again, as no fault of a disk could."""
        state = json.loads(self.ledger.read_bytes())
        del state["seal"]
        self.ledger.write_bytes(with_seal(json.dumps(change(state)).encode(), KEY))

    def leases(self):
        """The newest lease of every node in the store."""
        store = open_store(self.url)
        signed = {node: newest_lease(store, node, time.time()) for node in self.nodes}
        store.close()
        keys = {node: node_key(KEY, node) for node in self.nodes}
        return {node: open_lease(s, keys[node], node, 0, time.time()) for node, s in signed.items() if s is not None}

    def held_w(self, time_s):
        """The sum of caps that the newest leases and the safe caps allow at a time."""
        caps = dict(self.nodes)
        for node, lease in self.leases().items():
            if lease.expires_s > time_s:
                caps[node] = max(caps[node], lease.node_cap_w)
        return sum(caps.values())


@pytest.fixture
def desk(tmp_path, plan, capsys, monkeypatch):
    return Desk(tmp_path, plan, capsys, monkeypatch)


def with_budget(plan, *steps):
    """The plan with a budget of the site in steps of (seconds after its start, W)."""
    s = plan.snapshot
    series = Series(tuple(float(s.start_s + at_s) for at_s, _ in steps), tuple(float(watts) for _, watts in steps))
    site = msgspec.structs.replace(s.site, budgets={s.site.name: series})
    return msgspec.structs.replace(plan, snapshot=msgspec.structs.replace(s, site=site))
