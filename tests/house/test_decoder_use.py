"""Data from outside is decoded in powerhall.runtime.decode alone: a call that decodes elsewhere has a reason here."""

import ast

PARTS = ("core", "agent", "optimizer", "twin", "dashboards")
DECODER = "core/powerhall/runtime/decode/"
CALLS = {
    *(f"json.{name}" for name in ("loads", "load")),
    *(f"msgspec.{form}.{name}" for form in ("json", "toml", "yaml", "msgpack") for name in ("decode", "Decoder")),
    *(f"tomllib.{name}" for name in ("loads", "load")),
    *(f"csv.{name}" for name in ("reader", "DictReader")),
    *(f"gzip.{name}" for name in ("open", "decompress", "GzipFile")),
    *(f"zlib.{name}" for name in ("decompress", "decompressobj")),
    *(f"{name}.open" for name in ("bz2", "lzma", "tarfile", "zipfile")),
    *(f"ET.{name}" for name in ("fromstring", "parse", "iterparse")),
    *(f"pickle.{name}" for name in ("loads", "load")),
    *(f"subprocess.{name}" for name in ("run", "Popen", "check_output")),
    *("base64.b64decode", "yaml.safe_load", "urllib.request.urlopen", "requests.get", "requests.post"),
}
METHODS = {
    "read_text",
    "read_bytes",
    "recv",
    "recv_into",
    "recvfrom",
    "drain_conn",
    "isdigit",
    "isdecimal",
    "isnumeric",
}
"""Called on any object. Of text, `isdigit` takes "²", and `int` takes no text of 5,000 digits: `digits` decides."""

OURS = "between processes of Powerhall, one of which started the other"
KERNEL = "a file of the kernel, which nobody else writes"
MADE = "encoded by this process a moment before"
SHIPPED = "a file of the installed package"
SAME = "compared with what is to be written, as bytes"
EXAMPLE = "an example that is copied"
BOUNDED = "one line or file of bounded size, and every error of the decoder is caught: tests/fuzz"
PART = "parts of a document that the decoder has taken in; what does not fit is left out"
SEGMENT = "segments of the spool: sized by the agent, each record by its CRC: tests/agent/delivery/test_spool.py"

AGENT, OPTIMIZER, TWIN = "agent/powerhall_agent/", "optimizer/powerhall_optimizer/", "twin/powerhall_twin/"
ALLOWED = {
    (AGENT + "attribution/pod_resources.py", "recv"): "frames of limited length, in a limited time",
    (AGENT + "capper/carrier.py", "base64.b64decode"): BOUNDED,
    (AGENT + "capper/client.py", "msgspec.json.decode"): BOUNDED,
    (AGENT + "capper/client.py", "recv"): BOUNDED,
    (AGENT + "capper/connection.py", "recv"): BOUNDED,
    (AGENT + "capper/lease_guard.py", "subprocess.Popen"): OURS,
    (AGENT + "capper/lease_memory.py", "msgspec.json.decode"): BOUNDED,
    (AGENT + "capper/safe_config.py", "tomllib.loads"): BOUNDED,
    (AGENT + "capper/server.py", "msgspec.json.decode"): BOUNDED,
    (AGENT + "capper/found_limits.py", "read_text"): KERNEL,
    (AGENT + "capper/instance_lock.py", "read_text"): KERNEL,
    (AGENT + "collectors/rapl.py", "read_text"): KERNEL,
    (AGENT + "daemon/metrics_server.py", "recv"): "a request line of limited length, in a limited time",
    (AGENT + "daemon/self_metrics.py", "read_bytes"): KERNEL,
    (AGENT + "redfish/client.py", "drain_conn"): "on a pool whose answers are limited",
    (AGENT + "sampling/driver_session.py", "read_text"): KERNEL,
    (AGENT + "commands/doctor.py", "msgspec.json.decode"): OURS,
    (AGENT + "commands/doctor.py", "subprocess.run"): OURS,
    (AGENT + "daemon/sampler_supervisor.py", "subprocess.Popen"): OURS,
    (AGENT + "sampling/process.py", "msgspec.json.decode"): OURS,
    (AGENT + "commands/spool.py", "read_bytes"): SEGMENT,
    (AGENT + "delivery/spool.py", "read_bytes"): SEGMENT,
    (AGENT + "simulate/recording.py", "gzip.open"): "for writing",
    ("core/powerhall/install/file_changes.py", "read_bytes"): SAME,
    ("core/powerhall/install/host_files.py", "read_text"): SHIPPED,
    ("core/powerhall/install/shipped.py", "read_bytes"): SHIPPED,
    ("core/powerhall/jobs/job_files.py", "msgspec.json.decode"): PART,
    ("core/powerhall/plan/multi_site.py", "msgspec.json.decode"): MADE,
    ("core/powerhall/plan/snapshot.py", "msgspec.json.decode"): MADE,
    ("core/powerhall/report/html_page.py", "json.loads"): MADE,
    ("dashboards/powerhall_dashboards/build.py", "read_text"): SAME,
    ("dashboards/powerhall_dashboards/commands/install.py", "read_text"): SHIPPED,
    ("dashboards/powerhall_dashboards/grafana/dashboard.py", "json.loads"): MADE,
    ("dashboards/powerhall_dashboards/live/publish.py", "json.loads"): MADE,
    ("dashboards/powerhall_dashboards/served/page_server.py", "base64.b64decode"): BOUNDED,
    (OPTIMIZER + "jit.py", "read_bytes"): SHIPPED,
    (OPTIMIZER + "leases/clocks.py", "read_text"): KERNEL,
    (OPTIMIZER + "planning/checked.py", "msgspec.json.decode"): MADE,
    (OPTIMIZER + "planning/round_clock.py", "read_text"): KERNEL,
    (OPTIMIZER + "schedulers/file.py", "read_bytes"): SAME,
    (OPTIMIZER + "schedulers/slurm/writer.py", "read_bytes"): SAME,
    (OPTIMIZER + "shed/event_manager.py", "msgspec.json.decode"): MADE,
    (OPTIMIZER + "shed/signals.py", "msgspec.json.decode"): BOUNDED,
    (OPTIMIZER + "solve/child_process.py", "recv"): OURS,
    (TWIN + "demo/agent_pool.py", "msgspec.json.decode"): OURS,
    (TWIN + "demo/agent_pool.py", "subprocess.Popen"): OURS,
    (TWIN + "demo/agent_worker.py", "msgspec.json.decode"): OURS,
    (TWIN + "demo/demo.py", "read_bytes"): EXAMPLE,
    (TWIN + "demo/realtime_agents.py", "subprocess.Popen"): OURS,
    (TWIN + "demo/rounds.py", "subprocess.Popen"): OURS,
    (TWIN + "policies/solver_warmup.py", "subprocess.Popen"): OURS,
    (TWIN + "report/pdf.py", "subprocess.run"): "its output is not read",
    (TWIN + "engine/jit.py", "read_bytes"): SHIPPED,
    (TWIN + "shed/shed_site.py", "read_bytes"): EXAMPLE,
}


def calls(tree):
    """Yield the dotted name of every call that decodes, or the method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in CALLS:
                yield name
            elif method in METHODS:
                yield method


def test_only_the_decoder_decodes(root):
    found = set()
    for part in PARTS:
        for path in sorted((root / part).rglob("*.py")):
            name = str(path.relative_to(root))
            if not name.startswith(DECODER):
                found |= {(name, call) for call in calls(ast.parse(path.read_text(encoding="utf-8")))}
    new, gone = sorted(found - set(ALLOWED)), sorted(set(ALLOWED) - found)
    assert not new, f"read it by powerhall.runtime.decode, or say here why not: {new}"
    assert not gone, f"no longer there: {gone}"


def test_every_entry_point_of_the_page_is_fuzzed(root):
    """The table of docs/security.md names all entry points of tests/fuzz, and no others."""
    named = set()
    for file in ("core", "agent", "optimizer"):
        for node in ast.walk(ast.parse((root / f"tests/fuzz/{file}_entries.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"Entry", "file_entry"}:
                named.add(node.args[0].value)
    lines = (root / "docs/security.md").read_text(encoding="utf-8").splitlines()
    rows = [
        line.split("|") for line in lines[lines.index("| what | from | limits | fuzzed as |") + 2 :] if line[:2] == "| "
    ]
    listed = {name.strip() for row in rows for name in row[4].split(";")}
    assert named == listed
