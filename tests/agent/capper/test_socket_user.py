"""The socket as shipped: whom `agent_user` names reaches the capper, and no other user does."""

import grp
import os
import pwd
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("powerhall-agent")


@pytest.fixture
def folder():
    """A folder that every user may enter; those of pytest are root's alone."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the capper's user and two others")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def connects(path, user):
    """Try it as a real user; without the interpreter, which may lie where only root can enter."""
    account = pwd.getpwnam(user)
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            import socket

            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
                    client.settimeout(5)
                    client.sendall(b'{"status":true}\n')
                    code = 0 if client.recv(65536) else 1
            except OSError:
                code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("own_group", [False, True])
def test_agent_user_reaches_the_capper_and_no_other_user_does(folder, own_group):
    user, other = "daemon", "games"
    (folder / "key").write_text("5a" * 32)
    (folder / "key").chmod(0o600)
    (folder / "capper.toml").write_text(
        f'node = "n1"\nkey_file = "{folder}/key"\nsafe_gpu_power_limit = "300 W"\nagent_user = "{user}"\n'
        f'socket = "{folder}/sock"\nmemory = "{folder}/memory.json"\n'
        + (f'socket_group = "{grp.getgrgid(pwd.getpwnam(other).pw_gid).gr_name}"\n' if own_group else "")
    )
    capper = subprocess.Popen(
        [PROGRAM, "cap", "--config", folder / "capper.toml", "--simulate", "2"], stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + 20
        while not connects(folder / "sock", "root"):
            assert time.monotonic() < deadline_s
            assert capper.poll() is None
            time.sleep(0.05)
        assert connects(folder / "sock", user) == (not own_group)  # with another group the file keeps it out
        assert not connects(folder / "sock", other)  # and the group alone is not enough: the capper asks for the user
    finally:
        capper.terminate()
        capper.wait(10)
