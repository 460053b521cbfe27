"""Leak detectors: where services have them, what their states say, and the node's events."""

import pytest

from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.redfish.client import RedfishReply
from powerhall_agent.redfish.leaks import node_leaks, unit_leaks
from powerhall_agent.sampling.plausibility import NodePlausibility

ROOT = "/redfish/v1"


def link(path):
    return {"@odata.id": f"{ROOT}/{path}"}


class Service:
    """Answers from a tree; counts the requests."""

    address = "http://bmc"

    def __init__(self, resources):
        self.resources, self.asked = {f"{ROOT}/{path}": body for path, body in resources.items()}, []

    def get(self, path):
        self.asked.append(path)
        found = self.resources.get(path)
        return RedfishReply(404 if found is None else 200, found)


def tray(*states, grouped=False):
    """A host's chassis without detectors, and one of the tray that has them, as rack-scale systems do."""
    where = "Chassis/Tray/ThermalSubsystem"
    tree = {
        "Chassis": {"Members": [link("Chassis/Host"), link("Chassis/Tray"), {"@odata.id": None}]},
        "Chassis/Host": {"ThermalSubsystem": None},
        "Chassis/Tray": {"ThermalSubsystem": link(where)},
        where: {"LeakDetection": link(f"{where}/LeakDetection")},
        f"{where}/LeakDetection": {"LeakDetectors": link(f"{where}/LeakDetection/LeakDetectors")},
        f"{where}/LeakDetection/LeakDetectors": {
            "Members": [link(f"{where}/LeakDetection/LeakDetectors/{n}") for n in range(len(states))]
        },
    }
    if grouped:
        detectors = [{"DetectorState": state} for state in states]
        tree[f"{where}/LeakDetection"]["LeakDetectorGroups"] = [{"Detectors": detectors}]
        return tree
    return tree | {f"{where}/LeakDetection/LeakDetectors/{n}": {"DetectorState": s} for n, s in enumerate(states)}


def test_a_leak_at_a_detector_of_the_second_page_is_seen():
    tree = tray("OK", "Critical")
    where = "Chassis/Tray/ThermalSubsystem/LeakDetection/LeakDetectors"
    first, second = tree[where]["Members"]
    tree[where] = {"Members": [first], "Members@odata.nextLink": f"{ROOT}/{where}?$skip=1"}
    tree[f"{where}?$skip=1"] = {"Members": [second]}
    assert node_leaks(Service(tree), ROOT).read() == 2.0


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (("OK", "OK"), 0.0),
        (("OK", "Warning"), 1.0),
        (("Critical", "OK", "Warning"), 2.0),
        (("ok", "CRITICAL"), 2.0),
        ((None, "OK"), 0.0),
        ((None, 7, "Unavailable", ["OK"], ""), None),  # nothing tells its state: that is not dry
        ((), None),
    ],
)
def test_the_worst_detector_of_any_chassis_counts(states, worst, grouped):
    assert node_leaks(Service(tray(*states, grouped=grouped)), ROOT).read() == worst


def test_a_unit_has_its_own_and_what_has_none_is_not_searched_at_every_read():
    tree = {
        "ThermalEquipment/CDUs/2": {"LeakDetection": link("ThermalEquipment/CDUs/2/LeakDetection")},
        "ThermalEquipment/CDUs/2/LeakDetection": {"LeakDetectorGroups": {"Detectors": {"DetectorState": "Critical"}}},
    }
    assert unit_leaks(Service(tree), ROOT, "2").read() == 2.0
    service, now_s = Service(tree), [0.0]
    leaks = unit_leaks(service, ROOT, "9")
    leaks.clock = lambda: now_s[0]
    assert [leaks.read() for _ in range(5)] == [None] * 5
    assert len(service.asked) == 2
    now_s[0] = 601.0
    leaks.read()
    assert len(service.asked) == 4


def test_a_service_without_a_list_of_chassis_has_no_detectors():
    assert node_leaks(Service({}), ROOT).read() is None


def test_a_change_is_an_event_of_its_severity_once():
    log = SensorLog()
    checks = NodePlausibility(log)
    told = []
    for state in (0.0, 0.0, 1.0, 1.0, 2.0, 9.0, 2.0, 0.0):
        kept = checks.sift({"leak_state": state})
        assert ("leak_state" in kept) == (state <= 2.0)
        told += [(event.kind, event.code, event.severity) for event in log.take_events() if event.kind == "leak"]
    assert told == [("leak", 1, 1), ("leak", 2, 2), ("leak", 0, 0)]
