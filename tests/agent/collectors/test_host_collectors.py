"""RAPL from a powercap tree, node power from a BMC, and collectors that fail."""

import http.server
import json
import threading

import pynvml
import pytest

from powerhall.runtime.errors import Rejected, Retryable
from powerhall_agent.collectors.rapl import Rapl
from powerhall_agent.collectors.redfish import Redfish
from powerhall_agent.sampling.collector_stats import FamilyStats
from powerhall_agent.settings.sampler_settings import RedfishSettings


def domain(root, name, label, energy_uj, range_uj=262_143_328_850):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_rapl_gives_power_of_packages_and_dram_over_a_wrap(tmp_path):
    first = domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 262_143_000_000)
    dram = domain(tmp_path, "intel-rapl:0:0", "dram", 0)
    domain(tmp_path, "intel-rapl:0:1", "core", 5)
    times = iter([10.0, 12.0])
    rapl = Rapl(tmp_path, lambda: next(times))
    assert rapl.collect() == {"cpu_energy_j": 0.0}
    first.write_text("201000000\n")
    second.write_text("99671150\n")
    dram.write_text("30000000\n")
    fields = rapl.collect()
    assert fields["cpu_power_w"] == pytest.approx((200.0 + 100.0) / 2)
    assert fields["dram_power_w"] == pytest.approx(15.0)
    assert fields["cpu_energy_j"] == pytest.approx(300.0)


def test_host_without_rapl_has_no_data(tmp_path):
    assert Rapl(tmp_path).collect() == {}


TREE = {
    "/redfish/v1/Chassis": {"Members": [{"@odata.id": "/redfish/v1/Chassis/Fan"},
                                        {"@odata.id": "/redfish/v1/Chassis/Sys"},
                                        {"@odata.id": "/redfish/v1/Chassis/Old"}]},
    "/redfish/v1/Chassis/Fan": {"Id": "Fan"},
    "/redfish/v1/Chassis/Sys": {"EnvironmentMetrics": {"@odata.id": "/redfish/v1/Chassis/Sys/EnvironmentMetrics"},
                                "Power": {"@odata.id": "/redfish/v1/Chassis/Sys/Power"}},
    "/redfish/v1/Chassis/Sys/EnvironmentMetrics": {"PowerWatts": {"Reading": 6412.5},
                                                   "TemperatureCelsius": {"Reading": 27}},
    "/redfish/v1/Chassis/Old": {"Power": {"@odata.id": "/redfish/v1/Chassis/Old/Power"},
                                "Thermal": {"@odata.id": "/redfish/v1/Chassis/Old/Thermal"}},
    "/redfish/v1/Chassis/Old/Power": {"PowerControl": [{"PowerConsumedWatts": None}, {"PowerConsumedWatts": 710}]},
    "/redfish/v1/Chassis/Old/Thermal": {"Temperatures": [
        {"Name": "CPU1", "ReadingCelsius": 61}, {"Name": "Inlet Temp", "ReadingCelsius": 24}]},
}  # fmt: skip


@pytest.fixture
def bmc():
    """A BMC that requires a password."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            allowed = self.headers["Authorization"] == "Basic b3A6c2VjcmV0"
            found = TREE.get(self.path)
            body = json.dumps(found or {}).encode()
            self.send_response(401 if not allowed else 404 if found is None else self.server.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.server.asked.append(self.path)

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def connect(bmc, tmp_path):
    password = tmp_path / "password"
    password.write_text("secret\n")
    made = []

    def build(**changes):
        given = {"url": f"http://127.0.0.1:{bmc.server_port}", "user": "op", "password_file": str(password), **changes}
        made.append(Redfish(RedfishSettings(**given)))
        return made[-1]

    yield build
    for redfish in made:
        redfish.close()


def test_bmc_gives_power_and_inlet_temperature_and_is_discovered_once(bmc, connect):
    redfish = connect()
    assert redfish.collect() == {"power_w": 6412.5, "inlet_temp_c": 27.0}
    assert redfish.collect() == {"power_w": 6412.5, "inlet_temp_c": 27.0}
    assert bmc.asked.count("/redfish/v1/Chassis") == 2  # for the power, and for leak detectors


def test_older_bmc_is_read_by_power_and_thermal(connect):
    assert connect(chassis="Old").collect() == {"power_w": 710.0, "inlet_temp_c": 24.0}


def test_bmc_errors_name_the_bmc_and_never_the_password(bmc, connect, tmp_path):
    (tmp_path / "wrong").write_text("letmein")
    with pytest.raises(Retryable, match=r"http://127.*HTTP 401") as caught:
        connect(password_file=str(tmp_path / "wrong")).collect()
    assert "letmein" not in str(caught.value)
    with pytest.raises(Retryable, match="no chassis 'Nope'"):
        connect(chassis="Nope").collect()


def test_bmc_that_comes_back_is_read_again(bmc, connect):
    redfish = connect()
    bmc.status = 503
    with pytest.raises(Retryable, match="503"):
        redfish.collect()
    bmc.status = 200
    assert redfish.collect()["power_w"] == 6412.5


def test_address_without_a_host_is_refused():
    with pytest.raises(Rejected, match="redfish: url: 'ftp://x'"):
        Redfish(RedfishSettings(url="ftp://x"))


class Failing:
    def __init__(self, error):
        self.error = error

    def collect(self):
        raise self.error


@pytest.mark.parametrize("error", [OSError("gone"), Retryable("later"), ValueError("odd"), ZeroDivisionError("bug")])
def test_failing_collector_is_reported_as_data_and_raises_nothing(error):
    family = FamilyStats("x")
    assert family.run(Failing(error)) == {}
    report = family.report()
    assert report["success"] == 0.0
    assert str(error) in report["detail"]
    assert family.report()["success"] == 1.0


def test_lost_gpu_is_raised_for_its_quarantine():
    with pytest.raises(pynvml.NVMLError):
        FamilyStats("x").run(Failing(pynvml.NVMLError(15)))
    assert FamilyStats("x").run(Failing(pynvml.NVMLError(4))) == {}
