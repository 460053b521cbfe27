"""BACnet/IP, OPC UA and MQTT against real servers: bacpypes3, asyncua, mosquitto."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from powerhall.runtime.errors import Retryable
from powerhall.store import Query, Select, open_store
from powerhall_agent.facility.points import DeviceMap
from powerhall_agent.facility.registry import open_reader

pytestmark = pytest.mark.rig
PROGRAM = Path(sys.executable).with_name("powerhall-agent")


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Served:
    """A server on an event loop in a thread of its own; `call` runs a coroutine there."""

    def __init__(self, start):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server = self.call(start())

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def cancelled(self):
        """End what the libraries leave running after their own stop."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self, stop):
        self.call(stop())
        self.call(self.cancelled())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture
def bacnet():
    """A chiller controller: analog-input 1 to 12, of which 5 has a fault and 6 is out of service."""
    pytest.importorskip("bacpypes3", reason="needs the extra facility")
    from bacpypes3.ipv4.app import NormalApplication
    from bacpypes3.local.analog import AnalogInputObject
    from bacpypes3.local.device import DeviceObject
    from bacpypes3.pdu import IPv4Address

    port = free_port(socket.SOCK_DGRAM)

    async def start():
        own = DeviceObject(objectIdentifier=("device", 7), objectName="chiller", vendorIdentifier=999)
        app = NormalApplication(own, IPv4Address(f"127.0.0.1:{port}"))
        for number in range(1, 13):
            app.add_object(
                AnalogInputObject(
                    objectIdentifier=("analog-input", number),
                    objectName=f"ai{number}",
                    presentValue=10.5 * number,
                    reliability="no-sensor" if number == 5 else "no-fault-detected",
                    eventState="normal",
                    outOfService=number == 6,
                    units="watts",
                )
            )
        await asyncio.sleep(0.1)
        return app

    served = Served(start)
    served.address = f"127.0.0.1:{port}"
    yield served

    async def stop():
        served.server.close()
        await asyncio.sleep(0.05)

    served.close(stop)


def reader_of(kind, point, places, **values):
    points = tuple(point(name=name, min=-1e9, max=1e9, **place) for name, place in places.items())
    return open_reader(kind(**{"name": "x", "map": "x", "timeout_s": 1.0, **values}), DeviceMap("x", "s", points))


def bacnet_reader(address, objects, **values):
    from powerhall_agent.facility.protocols.bacnet import BacnetDevice, BacnetPoint

    places = {f"p{at}_w": {"object": entry} for at, entry in enumerate(objects)}
    return reader_of(BacnetDevice, BacnetPoint, places, address=address, **{"bind": "127.0.0.1", **values})


OBJECTS = [*(f"analog-input,{n}" for n in range(1, 13)), "analog-input,99", "device,7", "analog-value,{member}"]


@pytest.mark.parametrize("together", [True, False])
def test_bacnet_objects_are_read_and_faults_cost_their_own_points(bacnet, together):
    if not together:  # as a small controller without ReadPropertyMultiple
        from bacpypes3.apdu import RejectPDU

        async def refuse(apdu):
            await bacnet.server.response(RejectPDU(reason="unrecognized-service", context=apdu))

        bacnet.server.do_ReadPropertyMultipleRequest = refuse
    reader = bacnet_reader(bacnet.address, OBJECTS)
    for _ in range(2):
        answer = reader.read()
        assert answer.values == {f"p{n - 1}_w": pytest.approx(10.5 * n) for n in range(1, 13) if n not in (5, 6)}
        assert {name: why.partition(": ")[2] for name, why in answer.problems.items()}["p4_w"] == "fault"
        assert "out-of-service" in answer.problems["p5_w"]
        assert "unknown" in answer.problems["p12_w"]
        assert set(answer.problems) == {"p4_w", "p5_w", "p12_w", "p13_w", "p14_w"}
    reader.close()
    assert reader.read().values
    reader.close()


def test_bacnet_sends_from_any_address_of_the_host(bacnet):
    reader = bacnet_reader(bacnet.address, OBJECTS[:2], bind="0.0.0.0")
    assert reader.read().values == {"p0_w": 10.5, "p1_w": 21.0}
    reader.close()


def test_a_bacnet_device_that_is_not_there_is_retryable():
    reader = bacnet_reader(f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}", OBJECTS[:2], timeout_s=0.3)
    with pytest.raises(Retryable, match="no answer within the timeout"):
        reader.read()
    reader.close()


@pytest.fixture(scope="module")
def opcua():
    """A server with a meter of four variables, for users that know the password."""
    asyncua = pytest.importorskip("asyncua", reason="needs the extra opcua")
    from asyncua.crypto.permission_rules import User, UserRole
    from asyncua.server.user_managers import UserManager

    class Users(UserManager):
        def get_user(self, _session, username=None, password=None, certificate=None):
            return User(role=UserRole.User) if (username, password) in {(None, None), ("op", "secret")} else None

    port, nodes = free_port(), {}

    async def start():
        server = asyncua.Server(user_manager=Users())
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/plant")
        at = await server.register_namespace("urn:plant")
        for name, value in (("Power", 5000.5), ("Count", 12), ("Name", "chiller"), ("On", True)):
            nodes[name] = await server.nodes.objects.add_variable(f"ns={at};s={name}", name, value)
        await server.start()
        return server

    served = Served(start)
    served.address, served.nodes, served.port = f"opc.tcp://127.0.0.1:{port}/plant", nodes, port
    yield served
    served.close(served.server.stop)


def opcua_reader(address, nodes, **values):
    from powerhall_agent.facility.protocols.opcua import OpcuaDevice, OpcuaPoint

    places = {f"p{at}_w": {"node": node} for at, node in enumerate(nodes)}
    return reader_of(OpcuaDevice, OpcuaPoint, places, address=address, **values)


NODES = ["ns=2;s=Power", "ns=2;s=Count", "ns=2;s=Name", "ns=2;s=On", "ns=2;s={member}"]


def test_opcua_nodes_are_read_with_their_status(opcua):
    from asyncua import ua

    reader = opcua_reader(opcua.address, NODES)
    for _ in range(2):
        answer = reader.read()
        assert answer.values == {"p0_w": 5000.5, "p1_w": 12.0}
        assert "'chiller' is not a number" in answer.problems["p2_w"]
        assert "BadNodeIdUnknown" in answer.problems["p4_w"]
        assert set(answer.problems) == {"p2_w", "p3_w", "p4_w"}
    bad = ua.DataValue(ua.Variant(1.0, ua.VariantType.Double), ua.StatusCode(ua.StatusCodes.BadSensorFailure))
    opcua.call(opcua.nodes["Power"].write_value(bad))
    answer = reader.read()
    opcua.call(opcua.nodes["Power"].write_value(5000.5))
    assert "BadSensorFailure" in answer.problems["p0_w"]
    assert answer.values == {"p1_w": 12.0}
    reader.close()


@pytest.mark.parametrize("most", [1, 2, 4])
@pytest.mark.parametrize("code", ["BadTooManyOperations", "BadResponseTooLarge"])
def test_an_opcua_server_that_reads_few_nodes_at_once_is_asked_for_as_many(opcua, monkeypatch, most, code):
    from asyncua import ua
    from asyncua.common.utils import ServiceError
    from asyncua.server.internal_session import InternalSession

    read, asked = InternalSession.read, []

    async def limited(session, params):
        asked.append(len(params.NodesToRead))
        if len(params.NodesToRead) > most:
            raise ServiceError(getattr(ua.StatusCodes, code))
        return await read(session, params)

    reader = opcua_reader(opcua.address, NODES)
    assert reader.read().values == {"p0_w": 5000.5, "p1_w": 12.0}
    monkeypatch.setattr(InternalSession, "read", limited)
    for _ in range(2):
        asked.clear()
        answer = reader.read()
        assert (answer.values, len(answer.problems)) == ({"p0_w": 5000.5, "p1_w": 12.0}, 3)
    assert max(asked) <= most, "what was too much is not asked for again"
    reader.close()


def test_points_of_one_object_have_its_value_each(bacnet, opcua):
    for reader in (
        bacnet_reader(bacnet.address, ["analog-input,2", "analog-input,5", "analog-input,2", "analog-input,5"]),
        opcua_reader(opcua.address, ["ns=2;s=Count", "ns=2;s=Name", "ns=2;s=Count", "ns=2;s=Name"]),
    ):
        answer = reader.read()
        assert answer.values["p0_w"] == answer.values["p2_w"]
        assert answer.problems["p1_w"] == answer.problems["p3_w"]
        assert len(answer.values) == len(answer.problems) == 2
        reader.close()


def test_opcua_logs_in_and_a_wrong_password_is_never_shown(opcua, tmp_path):
    (tmp_path / "pw").write_text("secret\n")
    (tmp_path / "wrong").write_text("letmein\n")
    reader = opcua_reader(opcua.address, NODES[:1], user="op", password_file=str(tmp_path / "pw"))
    assert reader.read().values == {"p0_w": 5000.5}
    reader.close()
    reader = opcua_reader(opcua.address, NODES[:1], user="op", password_file=str(tmp_path / "wrong"))
    with pytest.raises(Retryable) as caught:
        reader.read()
    assert "letmein" not in str(caught.value)
    reader.close()


def test_an_opcua_server_that_is_gone_or_silent_is_retryable(hung):
    for address in (f"opc.tcp://127.0.0.1:{free_port()}", f"opc.tcp://{hung}"):
        reader = opcua_reader(address, NODES, timeout_s=0.3)
        with pytest.raises(Retryable):
            reader.read()
        reader.close()


@pytest.fixture
def broker(tmp_path):
    pytest.importorskip("aiomqtt", reason="needs the extra facility")
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    running = []

    class Broker:
        port = free_port()

        def start(self):
            (tmp_path / "m.conf").write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
            running.append(subprocess.Popen([program, "-c", tmp_path / "m.conf"], stderr=subprocess.DEVNULL))
            end_s = time.monotonic() + 10
            while not listens(self.port):
                assert time.monotonic() < end_s
                time.sleep(0.05)

        def stop(self):
            running[-1].terminate()
            running[-1].wait(10)

        def send(self, *messages, retain=False):
            import aiomqtt

            async def publish():
                async with aiomqtt.Client("127.0.0.1", self.port) as client:
                    for topic, body in messages:
                        await client.publish(topic, body, qos=1, retain=retain)

            asyncio.run(publish())

    broker = Broker()
    broker.start()
    yield broker
    for process in running:
        process.terminate()
        process.wait(10)


PLACES = {
    "a_w": {"topic": "hall/{member}/power"},
    "b_w": {"topic": "hall/7/json", "pointer": "/meters/0/kw"},
    "c_w": {"topic": "hall/7/none"},
}


def mqtt_reader(port, places=None, **values):
    from powerhall_agent.facility.protocols.mqtt import MqttDevice, MqttPoint

    given = {"address": f"127.0.0.1:{port}", "member": "7", "tls": False, "silent_after_s": 1.0, **values}
    return reader_of(MqttDevice, MqttPoint, places or PLACES, **given)


def eventually(read, wanted, within_s=15.0):
    """Read until the values are these; a broker that is away for a moment is retryable."""
    end_s = time.monotonic() + within_s
    while True:
        try:
            found = read()
            if found.values == wanted:
                return found
        except Retryable as error:
            found = error
        assert time.monotonic() < end_s, found
        time.sleep(0.05)


def test_mqtt_takes_the_newest_message_of_each_topic_until_it_is_silent(broker):
    reader = mqtt_reader(broker.port)
    assert reader.read().problems["a_w"] == "hall/7/power: no message yet"
    broker.send(
        ("hall/7/power", "5000"), ("hall/7/power", " 5100.5 W"), ("hall/7/json", json.dumps({"meters": [{"kw": 3}]}))
    )
    eventually(reader.read, {"a_w": 5100.5, "b_w": 3.0})
    time.sleep(1.1)
    assert "no message for 1 s" in reader.read().problems["a_w"]
    broker.send(("hall/7/power", "off"), ("hall/7/json", "{"), ("hall/7/none", "x" * 100_000))
    end_s = time.monotonic() + 5
    while "not a number" not in reader.read().problems["a_w"]:
        assert time.monotonic() < end_s
    assert reader.read().values == {}
    reader.close()


def test_a_retained_message_of_unknown_age_is_no_reading(broker):
    broker.send(("hall/7/power", "5000"), retain=True)
    reader = mqtt_reader(broker.port)
    assert "retained" in reader.read().problems["a_w"]
    broker.send(("hall/7/power", "5001"))
    eventually(reader.read, {"a_w": 5001.0})
    reader.close()


def read_for(reader, seconds):
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        reader.read()
        time.sleep(0.05)


def test_a_broker_that_goes_and_comes_back_is_subscribed_again(broker):
    reader = mqtt_reader(broker.port, {"a_w": PLACES["a_w"]})
    broker.stop()
    with pytest.raises(Retryable):
        read_for(reader, 10)
    broker.start()
    end_s = time.monotonic() + 20
    while True:
        broker.send(("hall/7/power", "42"))
        try:
            if reader.read().values == {"a_w": 42.0}:
                break
        except Retryable:
            pass
        assert time.monotonic() < end_s
        time.sleep(0.1)
    reader.close()


def test_the_gateway_reads_all_three_by_maps_of_the_site(bacnet, opcua, broker, tmp_path):
    point = '[[point]]\nname = "power_w"\n{}\nmin = 0\nmax = {}\n'
    head = 'protocol = "{}"\nsource = "x"\n'
    (tmp_path / "b.toml").write_text(head.format("bacnet") + point.format('object = "analog-input,{member}"', 1e6))
    (tmp_path / "o.toml").write_text(head.format("opcua") + point.format('node = "ns=2;s=Power"', 1e6))
    (tmp_path / "m.toml").write_text(head.format("mqtt") + point.format('topic = "power"', 1e3))
    (tmp_path / "facility.toml").write_text(
        f'site = "n"\n[[device]]\nname = "b"\nprotocol = "bacnet"\naddress = "{bacnet.address}"\nmap = "b.toml"\n'
        f'member = "2"\nbind = "127.0.0.1"\n[[device]]\nname = "o"\nprotocol = "opcua"\naddress = "{opcua.address}"\n'
        f'map = "o.toml"\n[[device]]\nname = "m"\nprotocol = "mqtt"\naddress = "127.0.0.1:{broker.port}"\n'
        'map = "m.toml"\ntls = false\ntimeout_s = 10\n'
    )
    url = f"sqlite:///{tmp_path}/t.db"
    command = [PROGRAM, "gateway", "--config", tmp_path / "facility.toml", "--spool", tmp_path / "spool", "--once"]
    process = subprocess.Popen([*command, "--store", url, "--json"], stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        broker.send(("power", "4294967"))
        time.sleep(0.2)
    states = {state["name"]: state for state in json.loads(process.communicate()[0])}
    assert process.returncode == 1
    assert "outside 0 to 1000" in states["m"]["points"]["power_w"]
    store = open_store(url)
    query = Query("facility", (Select("value", "last"), Select("quality", "last")), {"site": "n"}, ("device",))
    found = {row.tags["device"]: row.values for row in store.query(query, time.time() - 600, time.time() + 1)}
    store.close()
    assert found["b"] == {"value": 21.0, "quality": 1.0}
    assert found["o"] == {"value": 5000.5, "quality": 1.0}
    assert found["m"]["quality"] == 0.0
    assert found["m"].get("value") is None
