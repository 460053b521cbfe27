"""`powerhall-safecaps`, the last line behind the capper: small, quick, and in need of nothing but the GPUs."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.rigs.capper_process import FOUND_W, MIN_W, ON_A_NEW_HOST, SAFE_W, lease

ORDERLY = {"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}
WAYS_OUT = {
    "by hand": {},
    "killed": {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"},
    "watchdog": {"SERVICE_RESULT": "watchdog", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"},
    "not restored": {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "1"},
}


def safecaps(rig, result=(), *more, before=()):
    command = [*before, sys.executable, "-m", "powerhall_agent.capper.safe_caps"]
    command += ["--config", rig.config, "--simulate-state", rig.folder / "gpus", *more]
    return subprocess.run(
        command, env=os.environ | dict(result), capture_output=True, text=True, timeout=20, check=False
    )


def test_after_any_end_but_an_orderly_one_the_safe_caps_are_set(rig):
    rig.start()
    rig.client.offer(lease(1, watts=650.0))
    rig.stop(signal.SIGKILL)
    assert rig.limits() == [650.0] * 4
    rig.key.unlink()
    rig.memory.write_bytes(b"\xff")
    for name, result in WAYS_OUT.items():
        for gpu in range(4):
            rig.fault(f"gpu {gpu} limit 650")
        done = safecaps(rig, result)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert rig.limits() == [SAFE_W] * 4, name
    rig.memory.unlink()
    rig.start()
    rig.stop(signal.SIGTERM)
    assert rig.limits() == [FOUND_W] * 4, "and what was found is not forgotten"


def test_after_an_orderly_stop_what_it_restored_stays(rig):
    rig.start()
    assert rig.stop(signal.SIGTERM) == 0
    assert safecaps(rig, ORDERLY).returncode == 0
    assert rig.limits() == [FOUND_W] * 4


def test_the_file_of_simulated_gpus_has_one_name_in_every_command_and_an_older_one(rig):
    for option in ("--state-file", "--simulate-state"):
        command = [sys.executable, "-m", "powerhall_agent.capper.safe_caps", "--config", rig.config]
        command += [option, rig.folder / "no"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1
        assert re.fullmatch(r"powerhall-safecaps: \S+/no: is not there: .*run --simulate.*\n", done.stderr)
    (rig.folder / "gpus").rename(rig.folder / "other")
    rig.start(wait=False)
    assert rig.process.wait(20) == 1
    assert "is not there: `powerhall-agent run --simulate --state-file" in rig.log


def test_a_running_capper_is_left_alone(rig):
    rig.start()
    rig.client.offer(lease(1))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(safecaps, rig)
        while not run.done():
            rig.client.alive()
            time.sleep(0.1)
    assert "another capper" in run.result().stderr
    assert rig.limits() == [500.0] * 4


def test_a_hung_and_a_lost_gpu_cost_themselves_alone_and_two_seconds(rig):
    rig.fault("gpu 1 hung 60")
    rig.fault("gpu 2 lost")
    begin = time.monotonic()
    done = safecaps(rig, (), "--within-s", "2")
    assert time.monotonic() - begin < 2.0 + 3.0  # and the start of Python on a busy machine
    assert done.returncode == 1
    assert [re.match(r"powerhall-safecaps: GPU (\d)", line)[1] for line in done.stderr.splitlines()] == ["1", "2"]
    assert rig.limits() == [SAFE_W, FOUND_W, FOUND_W, SAFE_W]


def test_limits_found_before_any_capper_ran_are_kept_for_its_stop(rig):
    safecaps(rig)
    assert rig.limits() == [SAFE_W] * 4
    rig.start()
    rig.stop(signal.SIGTERM)
    assert rig.limits() == [FOUND_W] * 4


@pytest.mark.parametrize(
    ("text", "watts"),
    [("safe_gpu_power_limit = '320 W'\n[[[", 320.0), ("[[[", MIN_W), ('safe_gpu_power_limit = "1e999 W"', MIN_W)],
)
def test_broken_settings_give_the_limit_of_the_line_or_the_lowest(rig, text, watts):
    rest = f'\nmemory = "{rig.memory}"\nsocket = "{rig.folder / "sock"}"\n'
    rig.config.write_text(rest + text)
    done = safecaps(rig)
    assert done.returncode == 0
    assert str(rig.config) in done.stderr
    assert rig.limits() == [watts] * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide what a capper of this host left")
def test_without_settings_and_without_a_capper_before_nothing_is_touched(rig):
    rig.config.unlink()
    done = safecaps(rig, before=ON_A_NEW_HOST)
    assert "nothing done" in done.stderr
    assert rig.limits() == [FOUND_W] * 4


def test_it_needs_the_standard_library_and_the_binding_of_nvml_only():
    code = "import sys; before = set(sys.modules); import powerhall_agent.capper.safe_caps\n"
    code += "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    others = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert others == {"powerhall", "powerhall_agent", "pynvml"}


def test_the_unit_runs_it_after_every_end(root):
    unit = (root / "deploy" / "systemd" / "powerhall-capper.service").read_text()
    (line,) = re.findall(r"^ExecStopPost=(.*)$", unit, re.MULTILINE)
    assert line == "/opt/powerhall/bin/powerhall-safecaps --config /etc/powerhall/capper.toml"
    scripts = (root / "pyproject.toml").read_text()
    assert 'powerhall-safecaps = "powerhall_agent.capper.safe_caps:run"' in scripts


@pytest.mark.parametrize("text", ["[", "\xff" * 40, ""], ids=["no TOML", "no text", "empty"])
def test_found_limits_of_a_first_start_with_broken_settings_are_put_back_by_a_later_one(rig, text):
    (rig.folder / "own").mkdir()
    rig.settings |= {"memory": rig.folder / "own" / "memory.json", "socket": rig.folder / "sock"}
    rig.config.write_text(text, encoding="latin-1")
    rig.start(wait=False)
    assert rig.process.wait(20) == 1
    assert rig.limits() == [MIN_W] * 4
    safecaps(rig, WAYS_OUT["not restored"])
    rig.write_config()
    rig.start()
    assert rig.limits() == [SAFE_W] * 4
    assert rig.client.alive().status.alarms == (), "no memory is lost: no lease was taken before"
    assert rig.stop(signal.SIGTERM) == 0
    assert rig.limits() == [FOUND_W] * 4
    assert not [*rig.folder.rglob("*.watts")]
