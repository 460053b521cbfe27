"""Safe caps come before everything: hung GPUs, missing keys, broken settings cost themselves alone."""

import fcntl
import os
import re
import signal
import subprocess
import time

import pytest
from tests.rigs.capper_process import FOUND_W, MIN_W, ON_A_NEW_HOST, SAFE_W, lease

from powerhall.lease import GpuCap, RefusedForNow
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall_agent.capper.node_key import NodeKeyFile
from powerhall_agent.capper.safe_config import read_safe_config
from powerhall_agent.commands.cap import whole_settings


def test_a_hung_gpu_keeps_no_other_from_its_safe_cap_at_a_start(rig):
    rig.fault("gpu 2 hung 30")
    rig.start()
    assert rig.limits() == [SAFE_W, SAFE_W, FOUND_W, SAFE_W]
    assert "GPU 2" in " ".join(rig.client.alive().status.alarms)


def test_a_hung_gpu_keeps_no_other_from_its_safe_cap_at_the_end_of_a_lease(rig):
    rig.start()
    rig.client.offer(lease(1))
    assert rig.limits() == [500.0] * 4
    rig.fault("gpu 2 hung 30")
    rig.client.close()  # the agent is silent from here
    rig.until(rig.limits, [SAFE_W, SAFE_W, 500.0, SAFE_W], 2.0)
    rig.fault("gpu 2 well")
    rig.until(rig.limits, [SAFE_W] * 4, 2.0)


def test_a_kill_and_a_new_start_beside_a_hung_gpu_bring_the_safe_caps(rig):
    rig.start()
    rig.client.offer(lease(1, watts=650.0))
    rig.fault("gpu 0 hung 60")
    rig.stop(signal.SIGKILL)
    assert rig.limits() == [650.0] * 4
    rig.start(wait=False)
    rig.until(rig.limits, [650.0, SAFE_W, SAFE_W, SAFE_W], 10.0)


@pytest.mark.parametrize("verb", ["lost", "hung 60", "unknown", "reset_required"])
def test_a_gpu_that_comes_back_after_the_start_is_taken_in_within_two_seconds(rig, verb):
    rig.fault(f"gpu 2 {verb}")
    rig.start()
    rig.client.offer(lease(1))  # the others get the lease
    assert rig.limits() == [500.0, 500.0, FOUND_W, 500.0]
    assert rig.client.alive().confirmation is None, "GPU 2 may draw anything"
    rig.fault("gpu 2 well")
    rig.until(rig.limits, [500.0] * 4, 2.0, beat=True)
    rig.until(lambda: rig.client.alive().confirmation is not None, True, 2.0)
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4


def test_a_gpu_that_stays_lost_keeps_no_other_from_its_found_limit_at_a_stop(rig):
    rig.start()
    rig.fault("gpu 1 lost")
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W, SAFE_W, FOUND_W, FOUND_W]
    rig.fault("gpu 1 well")
    rig.start()
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4, "what was found is kept until the GPU is back"


BROKEN_KEYS = {"missing": None, "empty": "", "no hex": "zz" * 32, "short": "aa" * 31, "no text": "\udcff" * 64}


@pytest.mark.parametrize("text", BROKEN_KEYS.values(), ids=BROKEN_KEYS)
def test_whatever_damages_a_key_is_no_key_until_it_is_mended(tmp_path, text):
    path, good = tmp_path / "node.key", "5a" * 32
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    file = NodeKeyFile(path)
    assert file.refresh(1.0)
    assert file.key is None
    assert str(path) in file.problem
    path.write_text(good)
    path.chmod(0o400)
    assert not file.refresh(1.5)
    assert file.refresh(2.1)
    assert (file.key, file.problem, file.exposed) == (bytes.fromhex(good), "", "")


@pytest.mark.parametrize("mode", [0o640, 0o420, 0o404, 0o602])
def test_a_key_that_others_may_read_or_write_is_an_alarm(tmp_path, mode):
    path = tmp_path / "node.key"
    path.write_text("5a" * 32)
    path.chmod(mode)
    file = NodeKeyFile(path)
    file.refresh(1.0)
    assert file.key is not None
    assert f"mode {mode:04o}" in file.exposed
    path.chmod(0o400)
    assert file.refresh(2.1)
    assert file.exposed == ""


@pytest.mark.parametrize("text", [None, BROKEN_KEYS["no text"]], ids=["missing", "no text"])
def test_without_a_good_key_safe_caps_hold_and_a_mended_one_needs_no_restart(rig, text):
    good = rig.key.read_text()
    rig.start()
    rig.client.offer(lease(1))
    rig.stop(signal.SIGKILL)
    if text is None:
        rig.key.unlink()
    else:
        rig.key.write_bytes(text.encode("utf-8", "surrogateescape"))
    rig.start()
    assert rig.limits() == [SAFE_W] * 4
    with pytest.raises(RefusedForNow, match="no node key"):
        rig.client.offer(lease(2))
    rig.key.write_text(good)

    def taken():
        try:
            rig.client.offer(lease(2))
        except Rejected:
            return False
        return True

    rig.until(taken, True, 3.0)
    assert rig.limits() == [500.0] * 4


BROKEN_CONFIGS = {
    "an unknown option": ('{text}colour = "red"\n', SAFE_W),
    "no TOML": ("{text}this is = = no toml\n", SAFE_W),
    "deep TOML": ("{text}x = " + "[" * 3000 + "\n", SAFE_W),
    "bytes that are no text": ("{text}# \udcff\n", SAFE_W),
    "no safe limit": ("{rest}", MIN_W),
    "a safe limit that is none": ('{rest}safe_gpu_power_limit = "plenty"\n', MIN_W),
}


def test_broken_settings_end_the_capper_in_one_line_after_safe_caps(rig):
    rig.start()
    rig.client.offer(lease(1, watts=650.0))
    rig.stop(signal.SIGKILL)
    whole = rig.config.read_text()
    rest = "".join(line for line in whole.splitlines(keepends=True) if "safe_gpu" not in line)
    for name, (form, watts) in BROKEN_CONFIGS.items():
        before = len(rig.log.splitlines())
        for gpu in range(4):
            rig.fault(f"gpu {gpu} limit 650")
        text = form.replace("{text}", whole).replace("{rest}", rest)
        rig.config.write_bytes(text.encode("utf-8", "surrogateescape"))
        rig.start(wait=False)
        assert rig.process.wait(20) == 1, name
        assert rig.limits() == [watts] * 4, name
        (line,) = rig.log.splitlines()[before:]
        assert str(rig.config) in line


def test_settings_that_are_mended_while_the_capper_starts_are_read_by_the_next_start(tmp_path):
    """What was found is noted under the names of the first reading: others would have taken 250 W for found."""
    config = tmp_path / "capper.toml"
    config.write_text("\0")
    first = read_safe_config(config)
    lines = [f'{name} = "{tmp_path}/{name}"' for name in ("key_file", "memory", "socket")]
    config.write_text("\n".join(['node = "n1"', 'safe_gpu_power_limit = "250 W"', *lines]))
    with pytest.raises(ConfigError, match="changed while the capper started"):
        whole_settings(config, first)
    assert whole_settings(config, read_safe_config(config)).node == "n1"


@pytest.mark.parametrize(
    ("setting", "damaged"), [("key_file", "/no/such/key"), ("node", "n2"), ("safe_gpu_power_limit", "250 W")]
)
def test_settings_that_were_valid_and_wrong_are_read_anew_once_they_are_mended(rig, setting, damaged):
    rig.write_config(**{setting: damaged})
    rig.start()
    if setting != "safe_gpu_power_limit":
        with pytest.raises((Rejected, RefusedForNow)):
            rig.client.offer(lease(1))
    rig.client.close()
    rig.write_config()
    assert rig.process.wait(10) == 1
    assert "changed while no lease was in force" in rig.log
    rig.start()
    rig.client.offer(lease(2))
    assert rig.limits() == [500.0] * 4


def test_settings_that_change_or_break_under_a_lease_end_nothing(rig):
    rig.start()
    rig.client.offer(lease(1))
    rig.write_config(safe_gpu_power_limit="250 W")
    begin = time.monotonic()
    while time.monotonic() - begin < 3.0:
        assert rig.answers()
        assert rig.limits() == [500.0] * 4
        time.sleep(0.2)
    rig.config.write_text("node = ")
    rig.client.close()
    rig.until(rig.limits, [SAFE_W] * 4, 2.0)
    time.sleep(3.0)
    assert rig.process.poll() is None


def test_an_agent_user_that_the_host_does_not_know_keeps_no_gpu_from_its_cap(rig):
    rig.write_config(agent_user="nobody-of-this-name")
    rig.start()
    assert rig.limits() == [SAFE_W] * 4
    (alarm,) = rig.client.alive().status.alarms
    assert "agent_user 'nobody-of-this-name'" in alarm
    assert "powerhall-agent install capper lease" in alarm
    assert "agent_user 'nobody-of-this-name'" in rig.log


def test_a_group_that_the_host_does_not_know_is_an_alarm(rig):
    rig.write_config(socket_group="nobody-of-this-name")
    rig.start()
    assert rig.limits() == [SAFE_W] * 4
    (alarm,) = rig.client.alive().status.alarms
    assert "no group 'nobody-of-this-name'" in alarm


def test_every_change_of_the_caps_is_a_line_of_the_log(rig):
    rig.start()
    rig.client.offer(lease(1, watts=700.0))
    rig.until(lambda: caps_logged(rig), ["0-3 300 W", "0-3 700 W"], 3.0, beat=True)
    rig.client.offer(lease(2, caps=(GpuCap(0, 500.0), GpuCap(1, 500.0), GpuCap(3, 500.0, 1200.0))))
    rig.until(lambda: caps_logged(rig)[2:], ["0-1 500 W, 2 300 W, 3 500 W at 1200 MHz"], 3.0, beat=True)


def caps_logged(rig):
    return re.findall(r'event=caps .*gpus="([^"]*)"', rig.log)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide what a capper of this host left")
def test_a_missing_config_leaves_gpus_alone_that_no_capper_has_touched(rig):
    rig.config.unlink()
    rig.start(wait=False, before=ON_A_NEW_HOST)
    assert rig.process.wait(20) == 1
    assert rig.limits() == [FOUND_W] * 4


def as_pipe(path):
    os.mkfifo(path)


def as_loop(path):
    path.symlink_to(path.name)


def as_folder(path):
    path.mkdir()


def as_long_file(path):
    path.write_text('node = "n1"\nkey_file = "key"\nsafe_gpu_power_limit = "300 W"\n' + "# x\n" * 18_000)


@pytest.mark.parametrize("make", [as_pipe, as_loop, as_folder, as_long_file])
def test_settings_that_are_no_file_of_their_size_end_a_first_start_after_the_lowest_limits(rig, make):
    rig.config.unlink()
    make(rig.config)
    rig.start(wait=False)
    assert rig.process.wait(20) == 1
    assert rig.limits() == [MIN_W] * 4
    (line,) = [line for line in rig.log.splitlines() if "capper.toml" in line]
    assert "changed while" not in line


def test_a_limit_that_another_program_changes_is_set_again_within_a_second(rig):
    rig.start()
    rig.fault("gpu 3 limit 650")
    rig.until(rig.limits, [SAFE_W] * 4, 1.5)


def test_a_slow_driver_delays_no_safe_cap_beyond_two_seconds(rig):
    rig.start()
    rig.client.offer(lease(1))
    rig.fault("gpu 1 slow 0.15")
    time.sleep(1.0)
    rig.client.close()
    rig.until(rig.limits, [SAFE_W] * 4, 2.0 + 0.5)


@pytest.mark.parametrize("text", ["", "a\\u0000b"])
def test_a_name_that_nothing_can_have_is_refused_in_one_line_after_safe_caps(rig, text):
    for name in ("node", "key_file", "memory", "socket", "agent_user"):
        if name == "agent_user" and not text:
            continue  # it admits root alone
        before = len(rig.log.splitlines()) if rig.process else 0
        for gpu in range(4):
            rig.fault(f"gpu {gpu} limit {FOUND_W:.0f}")
        rig.write_config(**{name: text})
        rig.start(wait=False)
        assert rig.process.wait(20) == 1, name
        assert rig.limits() == [SAFE_W] * 4, name
        lines = rig.log.splitlines()[before:]
        assert any(f"capper.toml: {name}: " in line for line in lines), lines
        assert "Traceback" not in rig.log


def test_a_log_that_nobody_reads_keeps_no_gpu_at_its_lease(rig):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reader), os.fdopen(writer, "wb") as log:
        rig.process = subprocess.Popen(rig.command(), stdout=log, stderr=log)
        rig.until(rig.answers, True, 20.0)
        for number in range(1, 61):  # each is a line of some 100 bytes
            rig.client.offer(lease(number, plan=f"plan {number}"))
        rig.client.close()
        rig.until(rig.limits, [SAFE_W] * 4, 3.0)
        assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4
