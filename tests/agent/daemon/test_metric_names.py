"""/metrics as Prometheus expects it: names, types, both formats, and dcgm-exporter's names by a setting."""

import io
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from powerhall.runtime.log import Log
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import MEASUREMENTS
from powerhall_agent.daemon.metric_names import metric_of
from powerhall_agent.daemon.prometheus import Exposition
from powerhall_agent.settings.agent_settings import PrometheusSettings

PROMTOOL = Path.home() / ".cache" / "powerhall-tools" / "promtool"
NOW_MS = 1_700_000_000_000
TAGS = {"site": "lab", "hall": "h", "rack": 'R17 19"', "node": "gn01", "gpu": "0"}
IDENTITY = {
    "uuid": "GPU-be6e8706",
    "name": "NVIDIA H200",
    "serial": "1",
    "pci_bus_id": "00000000:17:00.0",
    "driver": "590.48.01",
    "architecture": 9.0,
}
GPU = {"power_w": 500.0, "energy_j": 12.5, "util_percent": 40.0, "sm_clock_mhz": 1980.0, "temp_c": 61.0, "pstate": 0.0}
MEMORY = {"mem_used_bytes": 3.0 * (1 << 30), "mem_total_bytes": 141.0 * (1 << 30)}
"""As written by the collectors: 3 of 141 GiB."""


def exposition(names="powerhall", *more):
    found = Exposition(names)
    for measurement, fields, time_ms in (
        ("gpu_identity", IDENTITY, NOW_MS - 900_000),  # written every ten minutes
        ("gpu", GPU | MEMORY, NOW_MS),
        ("gpu_activity", {"sm_active_percent": 55.0, "pcie_tx_bytes_per_s": 7.0}, NOW_MS),
        ("gpu_slow", {"ecc_corrected": 3.0, "remap_pending": 0.0}, NOW_MS),
        *more,
    ):
        found.update(encode(Point(measurement, TAGS, fields, time_ms)))
    return found


def every_metric():
    """One point of every measurement with every field."""
    found = Exposition("powerhall")
    for name, entry in MEASUREMENTS.items():
        fields = {field.name: "text" if field.is_text else float(field.name != "end_s") for field in entry.fields}
        found.update(encode(Point(name, dict.fromkeys(entry.tags, "a"), fields, NOW_MS)))
    return found.text()


ABBREVIATED = {
    "s",
    "ms",
    "us",
    "ns",
    "sec",
    "b",
    "kb",
    "mb",
    "gb",
    "h",
    "m",
    "w",
    "j",
    "c",
    "mhz",
    "percent",
    "kelvins",
}


def test_every_field_has_a_name_in_base_units_and_every_counter_its_suffix():
    """Looked at from outside, by the text alone."""
    text = every_metric()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert len(types) > 150
    of_agent = {name for name in types if re.match(r"powerhall_(gpu|node|agent|collector|job)", name)}
    assert len(of_agent) > 60
    for name in of_agent:
        last = name.removesuffix("_total").rpartition("_")[2]
        assert last not in ABBREVIATED, name
        assert name.endswith("_total") == (types[name] == "counter"), name
    for name in ("powerhall_gpu_energy_joules_total", "powerhall_agent_sent_points_total"):
        assert types[name] == "counter"
    assert types["powerhall_gpu_power_watts"] == "gauge"


@pytest.mark.rig
@pytest.mark.parametrize("source", ["every field", "a scrape"])
def test_promtool_has_nothing_to_say(source):
    if not PROMTOOL.is_file():
        pytest.skip(f"no {PROMTOOL}; `make metrics-check` builds it")
    text = every_metric() if source == "every field" else exposition().text()
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_values_are_in_base_units():
    text = exposition().text()
    place = 'site="lab",hall="h",rack="R17 19\\"",node="gn01",gpu="0"'
    for line in (
        f"powerhall_gpu_power_watts{{{place}}} 500.0",
        f"powerhall_gpu_energy_joules_total{{{place}}} 12.5",
        f"powerhall_gpu_util_ratio{{{place}}} 0.4",
        f"powerhall_gpu_sm_clock_hertz{{{place}}} 1980000000.0",
        f"powerhall_gpu_slow_ecc_corrected_total{{{place}}} 3.0",
        f'powerhall_gpu_info{{{place},uuid="GPU-be6e8706",name="NVIDIA H200",serial="1",'
        'pci_bus_id="00000000:17:00.0",driver="590.48.01"} 1.0',
    ):
        assert f"{line}\n" in text
    assert "# EOF" not in text
    assert metric_of("gpu", "unheard_of").name == "powerhall_gpu_unheard_of"


def test_open_metrics_by_accept():
    found = exposition()
    found.serve(PrometheusSettings(listen="[::1]:0"), Log(io.StringIO()))
    try:
        for accept, kind, end in (
            ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0", b"# EOF\n"),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3",
                "application/openmetrics-text",
                b"# EOF\n",
            ),
            ("text/plain;version=0.0.4", "text/plain; version=0.0.4", b"\n"),
            ("*/*", "text/plain; version=0.0.4", b"\n"),
        ):
            request = urllib.request.Request(f"http://[::1]:{found.server.port}/metrics", headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert answer.headers["Content-Type"].startswith(kind)
                assert answer.read().endswith(end)
    finally:
        found.close()
    text = exposition("both").text(is_open=True)
    assert "# TYPE powerhall_gpu_energy_joules counter\npowerhall_gpu_energy_joules_total{" in text.replace(
        "# HELP", "# HELP"
    )
    assert "# TYPE powerhall_gpu info\npowerhall_gpu_info{" in text
    assert text.count("# EOF") == 1


LABELS = (
    'gpu="0",UUID="GPU-be6e8706",pci_bus_id="00000000:17:00.0",device="nvidia0",modelName="NVIDIA H200",'
    'Hostname="gn01",DCGM_FI_DRIVER_VERSION="590.48.01"'
)


def interval(job, end_s=0.0):
    return ("job_interval", {"job": job, "start_s": 1.0, "end_s": end_s, "energy_j": 1.0}, NOW_MS - 86_400_000)


@pytest.mark.parametrize(
    ("jobs", "more"),
    [
        ((), ""),
        (("ml/train-0",), ',namespace="ml",pod="train-0"'),
        (("4711",), ',hpc_job="4711"'),
        (("ml/a", "ml/b"), ""),  # shared: whose it is cannot be said
        (("process:python:7",), ""),
    ],
)
def test_dcgm_exporters_names_labels_and_units(jobs, more):
    xid = Point("event", {**TAGS, "kind": "xid"}, {"code": 79.0, "severity": 2.0}, NOW_MS - 3_600_000)
    found = exposition("dcgm", *(interval(job) for job in jobs), interval("done", end_s=5.0))
    found.update(encode(xid))
    text = found.text()
    assert "powerhall_" not in text
    for line in (
        f"DCGM_FI_DEV_POWER_USAGE{{{LABELS}{more}}} 500.0",
        f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{LABELS}{more}}} 12500.0",
        f"DCGM_FI_DEV_GPU_UTIL{{{LABELS}{more}}} 40.0",
        f"DCGM_FI_DEV_SM_CLOCK{{{LABELS}{more}}} 1980.0",
        f"DCGM_FI_DEV_FB_USED{{{LABELS}{more}}} 3072.0",
        f"DCGM_FI_DEV_FB_FREE{{{LABELS}{more}}} 141312.0",
        f"DCGM_FI_PROF_PCIE_TX_BYTES{{{LABELS}{more}}} 7.0",
        f"DCGM_FI_DEV_XID_ERRORS{{{LABELS}{more}}} 79.0",
    ):
        assert f"{line}\n" in text
    assert re.search(r"^DCGM_FI_PROF_SM_ACTIVE\{.*\} 0\.55", text, re.MULTILINE)
    assert "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter" in text


def test_jobs_that_share_a_gpu_are_shown_each_while_they_run():
    text = exposition("powerhall", interval("ml/a"), interval("ml/b"), interval("ml/c", end_s=5.0)).text()
    shown = re.findall(r'powerhall_job_interval_energy_joules\{.*job="([^"]*)"', text)
    assert sorted(shown) == ["ml/a", "ml/b"]


def test_a_line_that_cannot_be_read_costs_itself_alone():
    found = exposition()
    found.update(b'gpu,node="x power_w=oops 1\ngpu power_w 5\n')
    assert "powerhall_gpu_power_watts{" in found.text()


@pytest.mark.parametrize("names", ["powerhall", "dcgm"])
def test_a_gpu_that_is_lost_shows_no_readings_of_a_minute_ago(names):
    found = exposition(names)
    for up in (1.0, 0.0, 1.0):
        state = {"up": up, "reason": "ok" if up else "lost", "call_latency_s": 0.1}
        found.update(encode(Point("gpu_state", TAGS, state, NOW_MS + 1000)))
        text = found.text()
        power = "powerhall_gpu_power_watts{" if names == "powerhall" else "DCGM_FI_DEV_POWER_USAGE{"
        assert (power in text) == bool(up)
        assert names == "dcgm" or re.search(rf'powerhall_gpu_state_up.*reason="{state["reason"]}".* {up}', text)
        assert names == "dcgm" or "powerhall_gpu_info{" in text
