"""A real nginx between the agent and InfluxDB that answers in the store's place while a file says so.

`say("portal")` and so on choose the answer; `say("")` lets requests through. The second port never takes a body of more
than two KiB.
"""

import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rigs.influxdb import _NGINX, _free_port, _spawn, _stop  # the same configuration as in front of every InfluxDB

PAGE = "<html><head><title>Sign in</title></head><body>timeout, partial write, retention policy</body></html>"
ANSWERS = {
    "portal": f"return 200 '{PAGE}';",
    "empty": "return 200 '';",
    "created": "return 201 '{}';",
    "accepted": 'return 202 \'{"status":"queued"}\';',
    "bad-request": f"return 400 '{PAGE}';",
    "forbidden": f"return 403 '{PAGE}';",
    "too-large": f"return 413 '{PAGE}';",
    "unprocessable": f"return 422 '{PAGE}';",
    "gateway": 'return 400 \'{"message":"Invalid request body"}\';',
    "teapot": f"return 418 '{PAGE}';",
}


@dataclass
class Proxy:
    """Both ports, and the folder with the file."""

    port: int
    small_port: int
    folder: Path

    def say(self, name: str) -> None:
        """Choose the answer."""
        for other in ANSWERS:
            (self.folder / f"say-{other}").unlink(missing_ok=True)
        if name:
            (self.folder / f"say-{name}").touch()


@contextmanager
def start(influx_port: int) -> Iterator[Proxy]:
    """Run nginx in front of this InfluxDB until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="powerhall-proxy-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker is another user
        (folder / "tmp").mkdir()
        ports = _free_port(), _free_port()
        text = _NGINX.format(folder=folder, http_port=influx_port, shim_port=ports[0])
        says = "".join(f"    if (-f {folder}/say-{name}) {{ {words} }}\n" for name, words in ANSWERS.items())
        types = "    default_type text/html;\n"
        listen = f"    listen 127.0.0.1:{ports[0]};\n"
        server = text[text.index("  server {") : text.rindex("}")]
        small = server.replace(listen, f"    listen 127.0.0.1:{ports[1]};\n    client_max_body_size 2k;\n")
        text = text.replace(server, server.replace(listen, listen + types + says) + small)
        (folder / "nginx.conf").write_text(text)
        nginx = _spawn("nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), log=folder / "nginx.out")
        try:
            deadline_s = time.monotonic() + 20
            while not _answers(ports[0]):
                assert nginx.poll() is None, (folder / "nginx.out").read_text()
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            yield Proxy(ports[0], ports[1], folder)
        finally:
            _stop(nginx)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
