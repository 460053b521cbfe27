"""Entry points of core: files of every part, the store's answers, lines and documents, leases."""

import base64
import gzip
import hashlib
import hmac
import zlib
from pathlib import Path

import msgspec
from registry import DATA, ROOT, Entry, file_entry, head
from seeds import FLEET, JOBS, PLAN, SITE

from powerhall.forecasts.csv_series import PRICES, read_forecast
from powerhall.hostlist import compress, expand
from powerhall.jobs.job_files import write_jobs
from powerhall.jobs.readers.formats import read_job_file
from powerhall.lease import (
    Confirmation,
    Lease,
    SignedConfirmation,
    SignedLease,
    open_confirmation,
    open_lease,
    sign_confirmation,
    sign_lease,
)
from powerhall.physics.weather_files import read_weather
from powerhall.plan.multi_site import read_plans
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import Secret
from powerhall.site.curtailment import read_events
from powerhall.site.site_file import read_site
from powerhall.store.documents import join_parts
from powerhall.store.influxdb.address import parse_influx_url
from powerhall.store.influxdb.answers import one_line
from powerhall.store.influxdb.store import InfluxStore
from powerhall.store.line_protocol import parse_lines
from powerhall.store.points import batches
from powerhall.store.query import Query, Select

KEY = bytes(32)
PHILLY = (
    b"timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,60.0,2,120.0,vc1\n2017-10-09 07:02:55,6,8,4,v\n"
)
SACCT = (
    b"JobIDRaw|Submit|Elapsed|AllocTRES|Partition|Priority\n"
    b"12|2024-05-01T10:00:00|1-02:03:04|billing=8,gres/gpu=8,node=1|gpu|100\n12.0|2024-05-01T10:00:00|02:03:04||gpu|1\n"
    b"13|2024-05-01T10:00:01|00:03:04|gres/gpu:h100=4|dev|7\n"
)
SWF = b"; UnixStartTime: 1000\n; a\n" + b"".join(
    b"%d %d 5 600 64 -1 -1 64 900 -1 1 3 1 -1 1 -1 -1 -1\n" % (n, n * 60) for n in range(1, 9)
)
EPW = b"\n".join(
    [b"LOCATION,Phoenix,AZ,USA,TMY3,722780,33.45,-111.98,-7.0,337.0", *[b"X"] * 7]
    + [b"1999,1,1,%d,0,?9,%d.0,2.0,45,97000,0,0,0" % (hour, hour) for hour in range(1, 25)]
)
ANSWER = (
    b'{"results":[{"statement_id":0,"series":[{"name":"node","tags":{"node":"gn01"},"columns":["time","power_w"],'
    b'"values":[[1700000000000,1.5],[1700000001000,null]]}]},{"error":""}]}'
)
FOUND = (
    b'{"results":[{"series":[{"name":"document","columns":["time","digest","parts","key"],'
    b'"values":[[1700000000000,"ab",1,"phx"],[1600000000000,"cd",2,"phx"]]}]}]}'
)
LINES = (
    b"node,node=gn01,site=phx power_w=5000.5,gpus_up=8 1700000000000\n# a comment\n"
    b'lease,node=gn\\ 01 signed="a \\"b\\" c" 1700000000001\n'
)


def store(tmp: Path, body: bytes) -> None:
    """Query a store whose server answers with the body."""
    _store(body).query(Query("node", (Select("power_w", "last"),), group_by=("node",)), 0.0, 1e9)


def stored(tmp: Path, body: bytes) -> None:
    """Look for a document in a store whose server answers with the body."""
    opened = _store(body)
    opened._document = lambda where, digest: None
    opened.latest_document("plan", "phx")


def _store(body: bytes) -> InfluxStore:
    opened = InfluxStore(parse_influx_url("influxdb://127.0.0.1:1/power?version=1"))
    opened._http.query = lambda _: body
    opened._http.refusal = lambda text: Rejected(one_line(text))
    return opened


def host_list(tmp: Path, body: bytes) -> None:
    """Expand a host list; what is no list is a ValueError for the caller to name."""
    try:
        names = expand(body.decode("utf-8", "replace"))
    except ValueError:
        return
    compress(names)


def lines(tmp: Path, body: bytes) -> None:
    """Read lines as dashboards do, and as a store does."""
    try:
        list(parse_lines(body))
    finally:
        list(batches(body, "x"))


def documents(tmp: Path, body: bytes) -> None:
    """Join the parts of a document under the digest of what is in them, so that all of the way is run."""
    expander = zlib.decompressobj()
    try:
        whole = expander.decompress(body, 8 << 20)
    except zlib.error:
        whole = b""
    text = base64.b64encode(body).decode()
    digest = hashlib.sha256(whole).hexdigest()
    assert join_parts([text[:100], text[100:]], digest) in {None, whole}
    assert join_parts([body.decode("latin-1")], digest) is None


def lease(tmp: Path, body: bytes) -> None:
    """Open a lease that a broken planner signed: the signature is right, the body is anything."""
    signed = decode_json(body, SignedLease, "message")
    right = SignedLease(signed.body, hmac.new(KEY, signed.body, hashlib.sha256).hexdigest())
    open_lease(right, KEY, "gn01", 0, 1e9)


def confirmation(tmp: Path, body: bytes) -> None:
    """Open a confirmation that a broken capper signed."""
    signed = decode_json(body, SignedConfirmation, "message")
    right = hmac.new(KEY, b"powerhall confirmation\0" + signed.body, hashlib.sha256).hexdigest()
    open_confirmation(SignedConfirmation(signed.body, right), KEY, "gn01")


def settings(tmp: Path, body: bytes) -> None:
    """Read a secret."""
    (tmp / "secret").write_bytes(body)
    Secret(tmp / "secret").read()


def files(pattern: str, lines_: int = 400) -> tuple[bytes, ...]:
    """Return the heads of files of the checkout and of real data."""
    found = sorted(ROOT.glob(pattern)) + (sorted(DATA.glob(pattern)) if DATA.is_dir() else [])
    return tuple(head(path, lines_) for path in found)


def entries() -> list[Entry]:
    """Return the entry points of core."""
    own = write_jobs(JOBS).encode()
    prices = b"time_s,price\n" + b"".join(b"%d,%d.5\n" % (1_700_000_000 + 3600 * h, h) for h in range(48))
    weather = b"time,dry_bulb_c,wet_bulb_c\n2024-01-01T00:00,20.0,15.0\n2024-01-01T01:00,21.0,15.5\n"
    events_csv = (
        b"start,end,duration,zone,power_limit,reduce_percent,event_id,status\n1700020000,1700030000,,phx,,25,e1,active\n"
        b"2024-01-01T00:00,,2 h,,1 MW,,e2,\n"
    )
    events_json = b'[{"start": 1700020000, "duration": "2 h", "power_limit": "1 MW", "event_id": "e1"}]'
    signed = msgspec.json.encode(sign_lease(Lease("gn01", "p", 4, 1e9, 2e9, 9000.0, ()), KEY))
    confirmed = msgspec.json.encode(sign_confirmation(Confirmation("gn01", 4, 1.0), KEY))
    packed = (*[zlib.compress(PLAN[:3000])] * 19, zlib.compress(bytes(48 << 20)))
    sites = (SITE, *files("examples/*/*.toml"), *files("deploy/config/site.toml"))
    series = (prices, *files("examples/*/prices.csv", 60), *files("prices/*.csv.gz", 60))
    return [
        file_entry("site file", sites, "site.toml", read_site),
        file_entry("jobs: own CSV", (own, *files("examples/*/jobs.csv", 60)), "jobs.csv", read_job_file),
        file_entry("jobs: gzip", (gzip.compress(own), gzip.compress(PHILLY)), "jobs.csv.gz", read_job_file),
        file_entry("jobs: JSON", (msgspec.json.encode(JOBS),), "jobs.json", read_job_file),
        file_entry("jobs: SWF", (SWF,), "jobs.swf", read_job_file),
        file_entry("jobs: sacct", (SACCT,), "jobs.txt", read_job_file),
        file_entry("jobs: Philly", (PHILLY,), "philly.csv", read_job_file),
        file_entry("plan of one or several sites", (PLAN, FLEET), "plan.json", read_plans),
        file_entry("series CSV", series, "p.csv", lambda path: read_forecast(path, PRICES)),
        file_entry(
            "weather CSV",
            (weather, *files("examples/*/weather.csv", 60)),
            "w.csv",
            lambda p: read_weather(p, 1_704_067_200.0, 1_704_153_600.0),
        ),
        file_entry(
            "weather EPW",
            (EPW, *files("weather/*.epw.gz", 40)),
            "w.epw",
            lambda p: read_weather(p, 1_704_067_200.0, 1_704_153_600.0),
        ),
        file_entry("events CSV", (events_csv,), "events.csv", lambda path: read_events(path, "phx")),
        file_entry("events JSON", (events_json,), "events.json", lambda path: read_events(path, "phx")),
        Entry("host list", (b"gn[01-16,20],h1-k[1-3]-n[1-4],login1",), host_list),
        Entry("line protocol", (LINES,), lines),
        Entry("document of the store", packed, documents),
        Entry("answer of InfluxQL", (ANSWER, b'{"error":"database not found"}'), store),
        Entry("document of InfluxQL", (FOUND,), stored),
        Entry("confirmation", (confirmed,), confirmation),
        Entry("signed lease", (signed,), lease),
        Entry("secret", (b"token-1\n",), settings),
    ]
