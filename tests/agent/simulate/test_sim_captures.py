"""Every `nvidia-smi` capture, shown by the simulation and read by the agent, against our own encoding of it.

The golden files hold our line protocol only. `POWERHALL_GOLDEN=write pytest ...` writes them anew.
"""

import os
import re
from pathlib import Path

import pytest

from powerhall.runtime.errors import Rejected
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.sampling.sampler import Sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.captures import read_text, read_xml, to_state
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.world import claim

GOLDEN = Path(__file__).parent / "golden"
NAMES = (
    "linux-x86_64__nvidia-geforce-rtx-2080-super__595.71.05.txt",
    "linux-x86_64__nvidia-geforce-rtx-2080-super__610.57.04.txt",
    "linux-x86_64__nvidia-geforce-rtx-4080-super__595.71.05.txt",
    "linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01.txt", "linux-x86_64__nvidia-h100-mig__590.48.01.txt",
    "linux-x86_64__nvidia-l40s__595.80.txt", "windows-x86_64__nvidia-geforce-rtx-2080-super__591.86.txt",
    "windows-x86_64__nvidia-geforce-rtx-2080-super__610.62.txt",
    "a100-sxm4-v12.xml", "a10g.xml", "gtx-1070-ti.xml", "gtx-1660-ti.xml", "quadro-p2000-v12.xml", "quadro-p400.xml",
    "rtx-3060-v12.xml", "rtx-3080-v12.xml", "rtx-3080-v13.xml", "rtx-3090-v12.xml", "rtx-4000-sff-ada-v13.xml",
    "tesla-t4.xml",
)  # fmt: skip


class FixedClock:
    """A clock that the test advances."""

    def __init__(self):
        self.now_ns = 10**9

    def monotonic_ns(self):
        return self.now_ns

    def time_ns(self):
        return 1_700_000_000 * 10**9 + self.now_ns


def capture_of(path, part="load"):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".xml":
        return read_xml(text, path.name)
    found = re.search(rf"# {part} :: query \(-q\)\n.*?\n#+\n(.*?)\n#####", text, re.DOTALL)
    return read_text(found[1], path.name)


def sampled(capture):
    """Sample a captured machine for one interval with a fixed clock; returns the lines about its GPUs."""
    state = to_state(capture)
    claim(state)
    for symbol in ("nvmlEventSetWait_v2", "nvmlSystemEventSetCreate"):  # nothing happens here: no event thread
        state.ints[at.H_MISSING_SYMBOLS] |= 1 << at.OPTIONAL_SYMBOLS.index(symbol)
    install([state])
    lines = []

    class Sink:
        def write(self, block):
            lines.extend(block.splitlines(keepends=True))

    clock = FixedClock()
    sampler = Sampler(SamplerSettings(node="gn01", site="lab"), Sink(), clock)
    for _ in range(12):
        sampler.tick()
        clock.now_ns += 100_000_000
    sampler.close()
    kept = [line for line in lines if re.match(rb"(gpu|gpu_slow|gpu_mig|gpu_identity),", line)]
    return re.sub(rb'(uuid|serial)="[^"]*"', rb'\1="masked"', b"".join(kept))


def find(data_dir, name):
    return next((data_dir / "nvidia_smi").glob(f"*/{name}"))


@pytest.mark.parametrize("name", NAMES)
def test_capture_is_encoded_as_the_golden_file(data_dir, name):
    lines = sampled(capture_of(find(data_dir, name)))
    golden = GOLDEN / f"{name.rsplit('.', 1)[0]}.line"
    if os.environ.get("POWERHALL_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        golden.write_bytes(lines)
    assert lines == golden.read_bytes()


def test_every_capture_has_a_golden_file(data_dir):
    folder = data_dir / "nvidia_smi"
    present = {path.name for path in [*folder.glob("exporter/*__*.txt"), *folder.glob("telegraf_xml/*.xml")]}
    assert present == set(NAMES)


def test_loaded_h100_reads_as_nvidia_smi_printed_it(data_dir):
    name = "linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01.txt"
    points = {point.measurement: point for point in parse_lines(sampled(capture_of(find(data_dir, name))))}
    fields = points["gpu"].fields
    assert fields["power_w"] == 588.39
    assert fields["power_average_w"] == 629.45
    assert fields["hbm_power_w"] == 85.83
    assert "module_power_w" not in fields
    assert (fields["temp_c"], fields["temp_margin_c"], fields["hbm_temp_c"]) == (59, 26, 55)
    assert (fields["util_percent"], fields["sm_clock_mhz"], fields["pstate"]) == (100, 1980, 0)
    assert fields["mem_used_bytes"] == 19818 << 20
    slow = points["gpu_slow"].fields
    assert (slow["power_limit_min_w"], slow["power_limit_max_w"]) == (200, 700)
    assert (slow["temp_slowdown_c"], slow["temp_shutdown_c"]) == (87, 93)
    assert slow["processes"] == 3


def test_partitioned_h100_has_its_instances_and_no_utilization(data_dir):
    name = "linux-x86_64__nvidia-h100-mig__590.48.01.txt"
    points = list(parse_lines(sampled(capture_of(find(data_dir, name)))))
    instances = {point.tags["instance"]: point.fields for point in points if point.measurement == "gpu_mig"}
    assert set(instances) == {"2", "3", "9", "10"}
    assert instances["2"]["mem_total_bytes"] == 40448 << 20
    assert "util_percent" not in next(point for point in points if point.measurement == "gpu").fields


def test_gpu_without_power_readings_has_no_power(data_dir):
    points = list(parse_lines(sampled(capture_of(find(data_dir, "gtx-1070-ti.xml")))))
    fields = next(point for point in points if point.measurement == "gpu").fields
    assert fields["temp_c"] == 39
    assert not any(name.startswith("power") for name in fields)


@pytest.mark.parametrize("text", ["", "<html></html>", "<nvidia_smi_log></nvidia_smi_log>", "<nvidia", "GPU"])
def test_foreign_text_is_refused_in_one_line(text):
    for read in (read_text, read_xml):
        with pytest.raises(Rejected) as caught:
            read(text, "x.txt")
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("x.txt")
