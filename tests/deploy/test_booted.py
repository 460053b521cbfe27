"""The wheel, installed on a booted systemd as the pages say: real users, the units' own sandboxes, leases arriving.

`rigs/booted.py` boots this machine's systemd as process 1 of namespaces of its own (no container engine, no virtual
machine). GPUs are simulated in a file that only the capper may open; the store is a real InfluxDB. Everything else is
what the wheel installs: units are changed by drop-ins alone, which give agent and capper their simulated GPUs.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile
from rigs import booted

pytestmark = [pytest.mark.rig, pytest.mark.slow, pytest.mark.timeout(600)]
BIN = "/opt/powerhall/bin"
SOCKET = "/run/powerhall-capper/capper.sock"
SIMULATED = {
    "agent": (f"{BIN}/powerhall-agent run --config /etc/powerhall/agent.toml --simulate", ""),
    "capper": (
        f"{BIN}/powerhall-agent cap --config /etc/powerhall/capper.toml --simulate-state /run/gpus/state",
        f"ExecStopPost=\nExecStopPost={BIN}/powerhall-safecaps --config /etc/powerhall/capper.toml "
        "--simulate-state /run/gpus/state\nReadWritePaths=/run/gpus",
    ),
    # Three seconds in the place of a minute: the round of the unit otherwise.
    "optimizer": (
        f"{BIN}/powerhall-optimizer round --site /etc/powerhall/site.toml --store ${{POWERHALL_STORE}} "
        "--out /var/lib/powerhall-optimizer/plan.json --seconds 3 --horizon 4h",
        "",
    ),
}
USERS = {
    "agent": "powerhall-agent",
    "capper": "root",
    "lease": "powerhall-lease",
    "gateway": "powerhall-gateway",
    "rollup": "powerhall-rollup",
    "shed": "powerhall-grant",
}
CONNECT = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect({path!r}); s.sendall(b'{{\"status\":true}}\\n'); "
)
CONNECT += "print(s.recv(65536).decode())"


def wait(is_so, seconds, why):
    deadline_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline_s, why()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def machine(wheel, influx):
    """A machine with everything installed and started, and its store's URL."""
    if reason := booted.missing():
        pytest.skip(reason)
    url = influx.url(influx.database("booted"), "version=2&tls=false&token_file=$CREDENTIALS_DIRECTORY/store-token")
    with booted.boot() as machine:
        install(machine, wheel)
        configure(machine, url)
        start(machine)
        yield machine


def install(machine, wheel):
    (machine.root / "run" / wheel.name).write_bytes(wheel.read_bytes())
    machine.run(f"{booted.PYTHON}/bin/python3", "-m", "venv", "--without-pip", "/opt/powerhall")
    pip = ["env", f"PYTHONPATH={booted.LIBRARIES}", f"{BIN}/python", "-m", "pip", "install", "--quiet", "--no-index"]
    machine.run(*pip, "--no-deps", "--ignore-installed", f"/run/{wheel.name}")
    (version,) = (machine.root / "opt/powerhall/lib").iterdir()
    machine.write(f"/opt/powerhall/lib/{version.name}/site-packages/libraries.pth", booted.LIBRARIES + "\n")
    for program in ("agent", "optimizer"):
        done = machine.run(f"{BIN}/powerhall-{program}", "install", "--json")
        assert done.stderr == "", "the services cannot see the program"
        for command in json.loads(done.stdout)["next"]:
            if command.startswith(("systemd-", "systemctl daemon-reload")):
                machine.run("sh", "-c", command)


def configure(machine, url):
    etc = machine.root / "etc/powerhall"
    for example in etc.glob("*.example"):
        text = example.read_text()
        text = text.replace("# events = ", "events = ")
        text = text.replace('rack = "r1"', 'rack = "r1"\nnode = "gn01"')
        text = re.sub(r"influxdb://influx\.example\S*?(?=['\"])", url, text)
        (etc / example.name.removesuffix(".example")).write_text(text)
    began_s = int(time.time()) - 600
    rows = f"train1,8,2 h,0,running,hall1,hgx-h100,p700,gn01,{began_s}\ntrain2,8,2 h,0,waiting,,,,,\n"
    columns = "job_id,gpus,duration_s,submit_s,state,hall,node_type,mode,nodes,start_s\n"
    machine.write("/etc/powerhall/jobs.csv", columns + rows)
    machine.write("/etc/powerhall/meters/pdu", "m" * 40 + "\n", 0o600)
    machine.write("/etc/powerhall/store-token", "t" * 40 + "\n", 0o600)
    machine.write("/etc/powerhall/shed-token", "s" * 40 + "\n", 0o600)
    machine.write("/etc/powerhall/site.key", "5a" * 32 + "\n", 0o600)
    node_key = "--site-key /etc/powerhall/site.key --node gn01 --out /run/gn01.key"
    machine.run(f"{BIN}/powerhall-optimizer", "node-key", *node_key.split())
    machine.run("install", "-m", "0400", "/run/gn01.key", "/etc/powerhall/node.key")
    machine.run("rm", "/run/gn01.key")
    for service, (command, more) in SIMULATED.items():
        machine.write(
            f"/etc/systemd/system/powerhall-{service}.service.d/simulated.conf",
            f"[Service]\nExecStart=\nExecStart={command}\n{more}\n",
        )
    gpus = machine.root / "run/gpus"
    gpus.mkdir(mode=0o700)
    StateFile.create(gpus / "state", gpus=8, node="gn01")
    (gpus / "state").chmod(0o600)


def start(machine):
    machine.run("systemctl", "daemon-reload")
    names = [f"powerhall-{name}" for name in ("agent", "capper", "lease", "gateway", "rollup", "shed")]
    machine.run("systemctl", "enable", "powerhall-queue", "powerhall-schedule", "powerhall-grant")
    done = machine.run("systemctl", "start", *[name for name in names if "shed" not in name], check=False)
    assert done.returncode == 0, done.stderr + machine.journal()


def limits(machine):
    state = StateFile.open(machine.root / "run/gpus/state")
    return {state.doubles[state.base(gpu) + at.C_LIMIT_W] for gpu in range(8)}


def test_a_stop_of_the_capper_keeps_the_files_of_its_locks(machine):
    """A lock whose file systemd removes would keep no second capper out, which makes a file of its own."""

    def locks():
        found = [*machine.root.glob("run/powerhall-capper/.*.lock"), *machine.root.glob("run/gpus/.*.lock")]
        return {path.name: (path.stat().st_ino, path.stat().st_mode & 0o777) for path in found}

    before = locks()
    assert {mode for _, mode in before.values()} == {0o600}, "the carrier's group holds none"
    assert len(before) == 2
    machine.run("systemctl", "stop", "powerhall-capper")
    assert limits(machine) == {700.0}, "what was found"
    assert locks() == before
    machine.run("systemctl", "start", "powerhall-capper")
    assert limits(machine) == {350.0}
    assert locks() == before


@pytest.fixture(scope="module")
def round_done(machine):
    """One round by its unit, with all that it pulls in: the queue before it, scheduler and leases after it."""
    assert limits(machine) == {350.0}, "safe caps before any lease" + machine.journal("powerhall-capper")
    done = machine.run("systemctl", "start", "powerhall-optimizer.service", check=False)
    assert done.returncode == 0, machine.journal()
    names = [f"powerhall-{name}.service" for name in ("queue", "optimizer", "schedule", "grant")]
    wait(
        lambda: all(machine.show(name, "ActiveState") == "inactive" for name in names),
        60,
        lambda: machine.journal(*names),
    )
    for name in names:
        assert machine.show(name, "Result") == "success", machine.journal(name)
    return machine


def test_leases_arrive_from_the_round_to_the_gpus(round_done):
    wait(
        lambda: limits(round_done) == {700.0},
        20,
        lambda: f"{limits(round_done)}\n{round_done.journal('powerhall-lease', 'powerhall-capper', 'powerhall-grant')}",
    )
    orders = (round_done.root / "var/lib/powerhall-schedule/orders.csv").read_text()
    assert "train1" in orders, orders


def test_safe_caps_hold_within_two_seconds_of_the_carriers_end(round_done):
    wait(lambda: limits(round_done) == {700.0}, 20, lambda: round_done.journal("powerhall-lease"))
    round_done.run("systemctl", "kill", "-s", "KILL", "powerhall-lease")
    round_done.run("systemctl", "stop", "powerhall-lease")
    wait(lambda: limits(round_done) == {350.0}, 2.5, lambda: round_done.journal("powerhall-capper"))
    round_done.run("systemctl", "start", "powerhall-lease")
    wait(lambda: limits(round_done) == {700.0}, 20, lambda: round_done.journal("powerhall-lease", "powerhall-capper"))


def test_a_carrier_that_is_killed_again_and_again_comes_back(round_done):
    for _ in range(6):
        round_done.run("systemctl", "kill", "-s", "KILL", "powerhall-lease")
        wait(lambda: round_done.show("powerhall-lease", "ActiveState") != "active", 5, lambda: "")
        wait(
            lambda: round_done.show("powerhall-lease", "ActiveState") == "active",
            10,
            lambda: round_done.journal("powerhall-lease"),
        )


def test_safe_caps_hold_after_the_cappers_crash_without_a_capper(round_done):
    wait(lambda: limits(round_done) == {700.0}, 20, lambda: round_done.journal("powerhall-lease", "powerhall-capper"))
    once = "/etc/systemd/system/powerhall-capper.service.d/once.conf"
    round_done.write(once, "[Service]\nRestart=no\n")
    round_done.run("systemctl", "daemon-reload")
    round_done.run("systemctl", "kill", "-s", "KILL", "--kill-whom=main", "powerhall-capper")
    wait(lambda: limits(round_done) == {350.0}, 4, lambda: round_done.journal("powerhall-capper"))
    assert round_done.show("powerhall-capper", "ActiveState") in {"failed", "deactivating"}
    wait(lambda: "status=0" in round_done.show("powerhall-capper", "ExecStopPost"), 10, lambda: "no ExecStopPost ran")
    assert round_done.show("powerhall-capper", "MainPID") == "0", "no capper set these caps"
    (round_done.root / once.lstrip("/")).unlink()
    round_done.run("systemctl", "daemon-reload")
    wait(lambda: round_done.show("powerhall-capper", "ActiveState") == "failed", 10, lambda: "")
    round_done.run("systemctl", "start", "powerhall-capper")
    wait(lambda: limits(round_done) == {700.0}, 20, lambda: round_done.journal("powerhall-lease", "powerhall-capper"))


def test_an_event_dropped_by_a_member_of_the_group_lowers_the_caps(round_done):
    machine = round_done
    machine.run("systemctl", "start", "powerhall-shed")
    assert machine.run("useradd", "--system", "--groups", "powerhall-signal", "griduser").returncode == 0
    event = '{"event_id": "e1", "power_limit": "30 kW", "duration": "10 min"}'
    script = "umask 027; cat >/var/lib/powerhall-signals/e1.part && mv /var/lib/powerhall-signals/e1.part "
    script += "/var/lib/powerhall-signals/e1.json"
    machine.run("sh", "-c", script, user="griduser", text=event)
    done = machine.root / "var/lib/powerhall-signals/done"
    wait(lambda: done.is_dir() and any(done.iterdir()), 20, lambda: machine.journal("powerhall-shed"))
    assert machine.show("powerhall-shed", "ActiveState") == "active"
    assert (machine.root / "var/lib/powerhall-grant/events.json").exists(), machine.journal("powerhall-shed")
    assert "e1" in machine.run("cat", "/var/lib/powerhall-grant/events.json", user="powerhall-grant").stdout
    machine.run("systemctl", "start", "powerhall-optimizer.service")  # a round reads the events of another user
    assert machine.show("powerhall-optimizer.service", "Result") == "success", machine.journal("powerhall-optimizer")
    plan = json.loads((machine.root / "var/lib/powerhall-optimizer/plan.json").read_text())
    assert "30000" in json.dumps(plan["snapshot"]["site"]), "the round did not read the event"


@pytest.mark.parametrize("service", sorted(USERS))
def test_every_service_runs_as_its_user_in_its_sandbox(round_done, service):
    if service == "shed":
        round_done.run("systemctl", "start", "powerhall-shed")
    unit = f"powerhall-{service}.service"
    assert round_done.show(unit, "ActiveState") == "active", round_done.journal(unit)
    assert round_done.show(unit, "NRestarts") == "0" or service == "lease", round_done.journal(unit)
    pid = round_done.main_pid(unit)
    status = Path(f"/proc/{pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = round_done.run("id", "-u", USERS[service]).stdout.strip()
    assert set(facts["Uid"].split()) == {uid}
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    admin = 1 << 21  # CAP_SYS_ADMIN
    assert int(facts["CapBnd"], 16) == (admin if service == "capper" else 0)
    assert int(facts["CapEff"], 16) == (admin if service == "capper" else 0)
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"t" * 40 not in environment
    assert b"s" * 40 not in environment


def test_the_capper_has_no_network_and_others_have(round_done):
    def devices(unit):
        lines = Path(f"/proc/{round_done.main_pid(unit)}/net/dev").read_text().splitlines()[2:]
        return {line.split(":")[0].strip() for line in lines}

    assert devices("powerhall-capper.service") == {"lo"}
    routes = Path(f"/proc/{round_done.main_pid('powerhall-capper.service')}/net/route").read_text().splitlines()
    assert len(routes) == 1
    ours, capper = Path("/proc/self/ns/net"), Path(f"/proc/{round_done.main_pid('powerhall-capper.service')}/ns/net")
    assert os.readlink(ours) != os.readlink(capper)


def test_the_socket_is_the_carriers_and_nobody_elses(round_done):
    def connect(user):
        return round_done.run(f"{BIN}/python", "-c", CONNECT.format(path=SOCKET), user=user, check=False)

    assert '"state"' in connect("powerhall-lease").stdout
    for user in ("powerhall-agent", "powerhall-gateway", "powerhall", "powerhall-grant", "games"):
        done = connect(user)
        assert "PermissionError" in done.stderr, (user, done.stdout, done.stderr)
    stat = round_done.run("stat", "-c", "%U:%G %a", SOCKET, str(Path(SOCKET).parent)).stdout.split("\n")
    assert stat[:2] == ["root:powerhall-lease 660", "root:powerhall-lease 750"]


def test_the_agents_user_cannot_write_limits(round_done):
    """Neither by the device's file (here: the simulated GPUs), nor by a lease of its own, nor as another user."""
    write = "from powerhall_agent.simulate.state import StateFile; from pathlib import Path; "
    write += "StateFile.open(Path('/run/gpus/state')).set_limit(0, 700.0)"
    done = round_done.run(f"{BIN}/python", "-c", write, user="powerhall-agent", check=False)
    assert "Permission denied" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "user", ["powerhall-agent", "powerhall-lease", "powerhall", "powerhall-schedule", "powerhall-grant"]
)
@pytest.mark.parametrize("secret", ["store-token", "site.key", "node.key", "shed-token"])
def test_no_user_reads_a_secret_from_its_file(round_done, user, secret):
    done = round_done.run("cat", f"/etc/powerhall/{secret}", user=user, check=False)
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("service", "secrets"),
    [
        ("agent", {"store-token"}),
        ("gateway", {"store-token", "meters_pdu"}),
        ("lease", {"store-token"}),
        ("rollup", {"store-token"}),
    ],
)
def test_a_service_sees_its_own_secrets_and_no_secret_of_another_one(round_done, service, secrets):
    """Inside its own mounts, as its own user."""
    pid = round_done.main_pid(f"powerhall-{service}.service")
    uid = round_done.run("id", "-u", USERS[service]).stdout.strip()
    inside = ["nsenter", "-t", str(pid), "-m", "-r", "setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]

    def listed(folder):
        return set(subprocess.run([*inside, "ls", folder], capture_output=True, text=True, check=True).stdout.split())

    assert listed("/run/credentials") == {f"powerhall-{service}.service"}
    assert listed(f"/run/credentials/powerhall-{service}.service") == secrets


def test_the_capper_reads_its_key_itself_and_is_handed_nothing(round_done):
    assert round_done.run("stat", "-c", "%U:%G %a", "/etc/powerhall/node.key").stdout.strip() == "root:root 400"
    pid = round_done.main_pid("powerhall-capper.service")
    assert b"CREDENTIALS_DIRECTORY" not in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("powerhall", "/var/lib/powerhall-grant/ledger.json"),  # a round raises no budget
        ("powerhall", "/var/lib/powerhall-grant/events.json"),
        ("powerhall-grant", "/var/lib/powerhall-optimizer/plan.json"),
        ("powerhall-schedule", "/var/lib/powerhall-optimizer/plan.json"),
        ("powerhall-rollup", "/var/lib/powerhall-optimizer/plan.json"),
    ],
)
def test_files_of_the_planner_are_written_by_their_owner_alone(round_done, user, path):
    done = round_done.run("sh", "-c", f"echo x >>{path}", user=user, check=False)
    assert "Permission denied" in done.stderr, done


def test_the_same_installation_again_changes_nothing_and_a_changed_unit_stays(round_done):
    again = round_done.run(f"{BIN}/powerhall-agent", "install", "--json")
    assert {file["action"] for file in json.loads(again.stdout)["files"]} == {"same"}
    unit = round_done.root / "etc/systemd/system/powerhall-gateway.service"
    unit.write_text(unit.read_text().replace("MemoryMax=256M", "MemoryMax=300M"))
    done = round_done.run(f"{BIN}/powerhall-agent", "install", check=False)
    assert done.returncode == 1
    assert "MemoryMax=300M" in unit.read_text()
    assert "MemoryMax=256M" in unit.with_name("powerhall-gateway.service.new").read_text()
