"""What was granted, read from the store by its plain HTTP interface. Shares no code with the product."""

import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace

from chaos.judge import Grant

URL = "http://127.0.0.1:8086"
DATABASE = "chaos"


def key_of(site_key: bytes, node: str) -> bytes:
    """Return the lease key of a node: HMAC-SHA256 of its name with the site key."""
    return hmac.new(site_key, b"powerhall lease key\0" + node.encode(), hashlib.sha256).digest()


def ask(statement: str, timeout_s: float = 5.0) -> list[dict[str, object]]:
    """Return the rows of an InfluxQL statement, with `time` in ms."""
    form = urllib.parse.urlencode({"db": DATABASE, "epoch": "ms", "q": statement}).encode()
    with urllib.request.urlopen(f"{URL}/query", form, timeout=timeout_s) as answer:
        result = json.load(answer)["results"][0]
    return [
        dict(zip(series["columns"], row, strict=True)) | series.get("tags", {})
        for series in result.get("series", ())
        for row in series["values"]
    ]


def write(lines: str, timeout_s: float = 2.0) -> None:
    """Write line protocol with times in ms; a store that does not answer loses it."""
    url = f"{URL}/write?db={DATABASE}&precision=ms"
    try:
        urllib.request.urlopen(url, lines.encode("utf-8", "surrogateescape"), timeout=timeout_s).close()
    except (OSError, urllib.error.URLError):
        return


def opened(text: object, key: bytes, front: bytes = b"") -> dict[str, object] | None:
    """Return the body of a signed lease or confirmation; None where the signature is not the node's."""
    try:
        signed = json.loads(base64.b64decode(str(text), validate=True))
        body = base64.b64decode(signed["body"])
        good = hmac.new(key, front + body, hashlib.sha256).hexdigest()
        return json.loads(body) if hmac.compare_digest(good, signed["signature"]) else None
    except (ValueError, KeyError, TypeError):
        return None


def signed_leases(node: str) -> list[str]:
    """Return the signed leases in the store, as texts, oldest first."""
    return [str(row["signed"]) for row in ask(f"SELECT signed FROM lease WHERE node = '{node}'")]


def shown() -> list[tuple[str, dict[str, object]]]:
    """Return what the store shows of leases and confirmations now, as (measurement, row)."""
    names = ("lease", "lease_confirmation")
    return [(name, row) for name in names for row in ask(f"SELECT signed, node FROM {name}")]


def grants(
    site_key: bytes,
    nodes: tuple[str, ...],
    runs: list[tuple[float, float]],
    zero_s: float,
    before: list[tuple[str, dict[str, object]]],
) -> list[Grant]:
    """Return all leases that the planner signed, also those that the store has lost but had `shown()` before.

    `runs` are (start, clock offset) of the lease commands, in true seconds of the epoch; `zero_s` is the epoch's time
    at 0 of the monotonic clock. A lease counts from the true moment at which it was issued.
    """
    found: dict[tuple[str, int], Grant] = {}
    rows = [*before, *shown()]
    for row in (row for name, row in rows if name == "lease"):
        for node in nodes:  # a lease of one node may lie under the name of another
            lease = opened(row["signed"], key_of(site_key, node))
            if lease is None or lease["node"] != node:
                continue
            caps = {cap["gpu"]: float(cap["power_limit_w"]) for cap in lease["caps"]}
            run = _run_of(float(lease["issued_s"]), runs)
            issued_s = float(lease["issued_s"]) - run[1]
            end_s = issued_s + float(lease["expires_s"]) - float(lease["issued_s"])
            sequence = int(lease["sequence"])
            found[node, sequence] = Grant(
                node, sequence, lease["plan_id"], issued_s - zero_s, end_s - zero_s, run[0] - zero_s, caps
            )
    confirmations = [row for name, row in rows if name == "lease_confirmation"]
    return _without_void(list(found.values()), confirmations, site_key, nodes, zero_s)


def _run_of(issued_s: float, runs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the run that issued a lease: the last that had begun, by the clock that it saw."""
    fitting = [(issued_s - offset_s - start_s, start_s, offset_s) for start_s, offset_s in runs]
    after = [entry for entry in fitting if entry[0] >= -0.05]
    _, start_s, offset_s = min(after or fitting, key=lambda entry: abs(entry[0]))
    return start_s, offset_s


def _without_void(
    all_: list[Grant], rows: list[dict[str, object]], site_key: bytes, nodes: tuple[str, ...], zero_s: float
) -> list[Grant]:
    """Mark leases that a confirmation of a newer one made void, from when that one was written.

    The time of a confirmation is of the node's clock: one that cannot be true counts from the issue of the newer lease.
    """
    confirmed = []
    for row in rows:
        for node in nodes:
            body = opened(row["signed"], key_of(site_key, node), b"powerhall confirmation\0")
            if body is not None and body["node"] == node:
                confirmed.append((node, int(body["sequence"]), float(str(row["time"])) / 1000 - zero_s))
    now_s = time.monotonic()
    done = []
    for grant in all_:
        void_s = float("inf")
        for node, sequence, at_s in confirmed:
            newer = [g.issued_s for g in all_ if g.node == node and grant.sequence < g.sequence <= sequence]
            if node == grant.node and newer:
                void_s = min(void_s, at_s if max(newer) <= at_s <= now_s else max(newer))
        done.append(replace(grant, void_s=void_s))
    return done
