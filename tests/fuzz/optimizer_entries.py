"""Entry points of the planner: settings, schedulers' answers, events, ledger, documents, and whole commands."""

import base64
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from commands import command
from registry import ROOT, Entry, file_entry
from seeds import FLEET, JOBS, PLAN, START_S, sealed

from powerhall.jobs.job_files import write_jobs
from powerhall.lease import Confirmation, sign_confirmation
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.store.query import Row
from powerhall_optimizer.cli import main as optimizer
from powerhall_optimizer.inputs.learning import _history
from powerhall_optimizer.inputs.round_settings import read_settings as read_round_settings
from powerhall_optimizer.inputs.telemetry import store_queue
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.leases.ledger_file import with_seal
from powerhall_optimizer.rcpsp import psplib
from powerhall_optimizer.rollup.planned_power import read_planned
from powerhall_optimizer.schedulers.kubernetes.jobs import to_job
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.objects import job_id, status_of
from powerhall_optimizer.schedulers.registry import read_settings
from powerhall_optimizer.schedulers.slurm.queue import to_queue
from powerhall_optimizer.schedulers.slurm.records import parse_nodes, parse_queue
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.signals import parse_signals
from powerhall_twin.cli import main as twin

KEY = bytes(32)
SLURM = ROOT / "tests" / "optimizer" / "schedulers" / "data"
PROJECT = b"""jobs (incl. supersource/sink ):  4
  - renewable                 :  1   R
  - nonrenewable              :  0   N
  - doubly constrained        :  0   D
PRECEDENCE RELATIONS:
jobnr.    #modes  #successors   successors
   1        1          2           2   3
   2        1          1           4
   3        1          1           4
   4        1          0
************************************************************************
REQUESTS/DURATIONS:
jobnr. mode duration  R 1
  1      1     0       0
  2      1     3       2
  3      1     4       1
  4      1     0       0
************************************************************************
RESOURCEAVAILABILITIES:
  R 1
    2
************************************************************************
"""
SIGNAL = b'{"event_id": "e1", "start": 1700000000, "end": 1700003600, "power_limit": "1 MW", "modification": 1, "within": "5 min"}'
SIGNAL_CSV = (
    b"event_id,start,end,duration,power_limit,reduce_percent,modification,within,status\ne1,,,1 h,,20,1,30 s,active\n"
)
JOB = json.dumps(
    {
        "metadata": {
            "name": "train", "namespace": "ml", "creationTimestamp": "2024-05-01T10:00:00Z", "resourceVersion": "5",
            "labels": {"kueue.x-k8s.io/queue-name": "q"},
            "annotations": {"powerhall.io/duration": "2 h", "powerhall.io/hall": "a", "powerhall.io/deadline": "2024-06-01"},
        },
        "spec": {
            "suspend": False, "parallelism": 2, "activeDeadlineSeconds": 600,
            "template": {"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "8"}}}], "priorityClassName": "p"}},
        },
        "status": {"startTime": "2024-05-01T10:00:00Z", "conditions": [{"type": "Failed", "status": "False"}]},
    }
).encode()  # fmt: skip


class OneAnswer:
    """A store that answers every question with the same bytes."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def latest_document(self, kind: str, key: str | None = None) -> bytes | None:
        return self.body

    def query(self, query: object, start_s: float, end_s: float) -> list[Row]:
        return [Row(1.0, {"node": "gn01"}, {"signed": self.body.decode("utf-8", "replace")})]


def _site(tmp: Path) -> Path:
    (tmp / "site.toml").write_bytes((ROOT / "examples/first/site.toml").read_bytes())
    return tmp / "site.toml"


def squeue(tmp: Path, body: bytes) -> None:
    site = read_site(_site(tmp))[0]
    to_queue(parse_queue(body.decode("utf-8", "replace")), (), site, SlurmSettings(), START_S)


def kubernetes(tmp: Path, body: bytes) -> None:
    """Read a Job; the API server sends objects, so that anything else is not tried."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(raw, dict):
        return
    job_id(raw)
    made = to_job(raw, read_site(_site(tmp))[0], KubernetesSettings(), now_s=1.8e9)
    assert made is not None
    status_of(raw)


def ledger(tmp: Path, body: bytes) -> None:
    (tmp / "ledger.json").write_bytes(with_seal(body, b""))
    site = read_site(_site(tmp))[0]
    caps = safe_caps_w(site)
    book = Ledger(caps, tmp / "ledger.json")
    for node in caps:
        book.exposure_w(node, START_S)


def shed_state(tmp: Path, body: bytes) -> None:
    (tmp / "state.json").write_bytes(body)
    (tmp / "events.json").write_bytes(b"[]")
    EventManager(tmp / "state.json", tmp / "events.json", lambda event: None, Log(open("/dev/null", "w")))  # type: ignore[arg-type,return-value]  # noqa: SIM115


def shed_events(tmp: Path, body: bytes) -> None:
    (tmp / "events.json").write_bytes(body)
    EventManager(tmp / "none.json", tmp / "events.json", lambda event: None, Log(open("/dev/null", "w")))  # type: ignore[arg-type,return-value]  # noqa: SIM115


def sealing(run: Callable[[Path, bytes], object]) -> Callable[[Path, bytes], object]:
    """Seal every other plan, by its own bytes, so that a run with the same seed does the same."""
    return lambda tmp, body: run(tmp, sealed(body) if random.Random(body).random() < 0.6 else body)


def on_plan(*arguments: str) -> Callable[[Path, bytes], None]:
    """Return a call of a command of the planner on a plan, `{}` standing for its folder."""

    def call(tmp: Path, body: bytes) -> None:
        (tmp / "plan.json").write_bytes(body)
        (tmp / "site.key").write_text("ab" * 32)
        for name in ("ledger.json", "orders.csv", "report.html", "x.db"):
            (tmp / name).unlink(missing_ok=True)
        command(optimizer, [argument.replace("{}", str(tmp)) for argument in arguments])

    return call


def current(body: bytes) -> bytes:
    """Move a plan's times to now, where they are to be found, so that commands which refuse old plans go on."""
    shift = int(time.time()) // 300 * 300 - START_S // 300 * 300
    plan = re.sub(rb"1700\d{6}", lambda found: b"%d" % (int(found[0]) + shift), body)
    return sealed(plan)


def a_round(tmp: Path, name: str, body: bytes) -> None:
    site = (ROOT / "examples/first/site.toml").read_bytes()
    files = {"site.toml": site, "jobs.csv": write_jobs(JOBS).encode(), "round.toml": b"risk = 0.01\n"}
    for file, text in (files | {name: body}).items():
        (tmp / file).write_bytes(text)
    (tmp / "plan.json").unlink(missing_ok=True)
    if name == "plan.json":
        (tmp / "plan.json").write_bytes(body)
    options = [
        "--start",
        str(START_S),
        "--horizon",
        "1h",
        "--seconds",
        "0.05",
        "--quiet",
        "--settings",
        f"{tmp}/round.toml",
    ]
    named = ["--site", f"{tmp}/site.toml", "--jobs", f"{tmp}/jobs.csv", "--out", f"{tmp}/plan.json"]
    command(optimizer, ["round", *named, *options])


def replay(tmp: Path, name: str, body: bytes) -> None:
    files = {"site.toml": (ROOT / "examples/first/site.toml").read_bytes(), "jobs.csv": write_jobs(JOBS).encode()}
    for file, text in (files | {name: body}).items():
        (tmp / file).write_bytes(text)
    named = ["--site", f"{tmp}/site.toml", "--jobs", f"{tmp}/jobs.csv", "--start", "0", "--at", str(START_S)]
    command(twin, ["replay", *named, "--hours", "0.2", "--seconds", "0.05", "--policies", "fcfs"])


def entries() -> list[Entry]:
    """Return the entry points of the planner and the twin."""
    example = (ROOT / "examples/first/site.toml").read_bytes()
    own = write_jobs(JOBS).encode()
    jobs_json = msgspec.json.encode({"time_s": 5, "jobs": JOBS, "down_nodes": ["gn01"]})
    confirmed = base64.b64encode(msgspec.json.encode(sign_confirmation(Confirmation("gn01", 4, 1.0), KEY)))
    squeues = tuple(path.read_bytes() for path in sorted(SLURM.glob("squeue-*.json")))
    sinfos = tuple(path.read_bytes() for path in sorted(SLURM.glob("sinfo-*.json")))
    event = b'{"e1":{"event_id":"e1","modification":1,"start_s":1.7e9,"end_s":1.8e9,"limit_w":1e6,"share":0.0,"within_s":10.0,"taken_s":1.7e9,"state":"active"}}'
    book = b'{"sequence":4,"entries":{"hall1-r1-k1-n1":[{"sequence":3,"cap_w":9000,"expires_s":1.7e9}]}}'
    lease_options = ("--store", "sqlite:///{}/x.db", "--site-key", "{}/site.key", "--ledger", "{}/ledger.json")
    now = current(PLAN)
    return [
        file_entry(
            "round.toml",
            (b"risk = 0.01\nlearn_days = 3.0\n[objective]\nusd_per_gpu_h = 2.0\n",),
            "r.toml",
            read_round_settings,
        ),
        file_entry("scheduler.toml", ((ROOT / "deploy/config/scheduler.toml").read_bytes(),), "s.toml", read_settings),
        Entry("squeue --json", squeues, squeue),
        Entry("sinfo --json", sinfos, lambda _, body: parse_nodes(body.decode("utf-8", "replace"))),
        Entry("Job of Kubernetes", (JOB,), kubernetes),
        Entry("signal of a utility", (SIGNAL, SIGNAL_CSV), lambda _, body: parse_signals(body, "x.json", "phx", 1.7e9)),
        Entry("ledger of leases", (book,), ledger),
        Entry("state of the shed service", (event,), shed_state),
        Entry(
            "events of the shed service",
            (b'[{"event_id": "m1", "start": 1, "end": 2, "power_limit": "1 MW"}]',),
            shed_events,
        ),
        Entry(
            "queue in the store",
            (jobs_json, msgspec.json.encode(JOBS)),
            lambda _, body: store_queue(OneAnswer(body), "phx"),
        ),  # type: ignore[arg-type]
        Entry(
            "draws in the store",
            (b'{"draws":{"default":[0.5]}}', b"{}"),
            lambda _, body: _history(OneAnswer(body), "phx"),
        ),  # type: ignore[arg-type]
        Entry("plan in the store", (PLAN,), lambda _, body: read_planned(body)),
        Entry(
            "confirmation in the store", (confirmed,), lambda _, body: read_acks(OneAnswer(body), KEY, ["gn01"], 1.0)
        ),  # type: ignore[arg-type]
        file_entry("PSPLIB project", (PROJECT,), "p.sm", psplib.read),
        Entry("verify", (PLAN, FLEET), sealing(on_plan("verify", "{}/plan.json"))),
        Entry("explain", (PLAN,), sealing(on_plan("explain", "b", "--plan", "{}/plan.json", "--seconds", "0"))),
        Entry("report", (PLAN,), sealing(on_plan("report", "{}/plan.json", "--out", "{}/report.html"))),
        Entry("lease", (now,), sealing(on_plan("lease", "--plan", "{}/plan.json", *lease_options))),
        Entry(
            "schedule",
            (now,),
            sealing(on_plan("schedule", "--plan", "{}/plan.json", "--scheduler", "file", "--dry-run")),
        ),
        Entry("round: site", (example,), lambda tmp, body: a_round(tmp, "site.toml", body)),
        Entry("round: jobs", (own,), lambda tmp, body: a_round(tmp, "jobs.csv", body)),
        Entry("round: last plan", (PLAN,), lambda tmp, body: a_round(tmp, "plan.json", body)),
        Entry(
            "round: settings",
            (b"risk = 0.01\n[objective]\nusd_per_gpu_h = 2.0\n",),
            lambda tmp, body: a_round(tmp, "round.toml", body),
        ),
        Entry("replay: site", (example,), lambda tmp, body: replay(tmp, "site.toml", body)),
        Entry("replay: trace", (own,), lambda tmp, body: replay(tmp, "jobs.csv", body)),
    ]
