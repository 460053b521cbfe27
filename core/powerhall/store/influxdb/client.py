"""influxdb-client's synchronous transport without the rest of the package.

`import influxdb_client` loads some 500 modules of the management API, ReactiveX and, where installed, NumPy: 20 to
30 MiB in a daemon that may take 48. The transport itself needs a dozen of them. While they are imported, their
packages stand in `sys.modules` without having run the `__init__` files that import everything else; afterwards the
entries are taken out again, so that the whole package can still be imported by others. A release laid out differently
makes `write_client` fall back on the ordinary import.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import urllib3

__all__ = ["ApiClient", "Configuration", "RestClient", "RestResponse", "write_client"]

_ROOT = "influxdb_client"
_PACKAGES = ("", ".client", ".domain", ".service", "._sync")
_NAMES = {
    "SigninService": ".service.signin_service",
    "SignoutService": ".service.signout_service",
    "VERSION": ".version",
}


class Configuration(Protocol):
    """Attributes of influxdb-client's Configuration; `timeout` is for the whole request, in milliseconds."""

    host: str
    ssl_ca_cert: str | None
    timeout: int


class RestResponse(Protocol):
    """An answer whose status is 2xx."""

    status: int

    def getheaders(self) -> Mapping[str, str]:
        """Return the headers."""


class RestClient(Protocol):
    """The transport of an ApiClient."""

    pool_manager: "urllib3.PoolManager"

    def request(self, method: str, url: str, **options: object) -> RestResponse:
        """Send one request; a refusing answer raises ApiException."""


class ApiClient(Protocol):
    """influxdb-client's ApiClient."""

    default_headers: dict[str, str]
    rest_client: RestClient


_lock = threading.Lock()
_modules: dict[str, ModuleType] = {}
"""Classes imported for the first client; later ones use them again."""


def write_client(configure: Callable[[Configuration], None]) -> tuple[ApiClient, type[Exception]]:
    """Make an ApiClient, its Configuration filled in by `configure`; return it and ApiException."""
    with _lock:
        try:
            with _lean():
                return _make(configure)
        except (ImportError, AttributeError):
            _modules.clear()
            return _make(configure)


@contextmanager
def _lean() -> Iterator[None]:
    spec = importlib.util.find_spec(_ROOT)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_ROOT)
    before = _take_out()
    try:
        if _modules:
            sys.modules.update(_modules)
        else:
            _enter_bare_packages(next(iter(spec.submodule_search_locations)))
        yield
    finally:
        _modules.update(_take_out())
        sys.modules.update(before)


def _take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == _ROOT or name.startswith(_ROOT + ".")]
    return {name: sys.modules.pop(name) for name in names}


def _enter_bare_packages(folder: str) -> None:
    for suffix in _PACKAGES:
        package = ModuleType(_ROOT + suffix)
        package.__path__ = [folder + suffix.replace(".", "/")]
        sys.modules[_ROOT + suffix] = package
        if suffix:
            setattr(sys.modules[_ROOT], suffix[1:], package)
    for name, module in _NAMES.items():
        setattr(sys.modules[_ROOT], name, getattr(importlib.import_module(_ROOT + module), name))


def _make(configure: Callable[[Configuration], None]) -> tuple[ApiClient, type[Exception]]:
    importlib.import_module(_ROOT)
    configuration = importlib.import_module(_ROOT + ".configuration").Configuration()
    configure(configuration)
    client = importlib.import_module(_ROOT + "._sync.api_client").ApiClient(configuration)
    return client, importlib.import_module(_ROOT + ".rest").ApiException
