"""influxdb-client's synchronous write service without the rest of the package.

`import influxdb_client` loads some 500 modules of the management API, ReactiveX and, where installed, NumPy: 20 to
30 MiB in a daemon that may take 48. The write service itself needs seven of them. Their packages are therefore entered
into `sys.modules` without running the `__init__` files that import everything else. A release laid out differently
makes `load` fall back on the ordinary import.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

__all__ = ["load"]

_ROOT = "influxdb_client"
_PACKAGES = ("", ".client", ".domain", ".service", "._sync")
_NAMES = {
    "SigninService": ".service.signin_service",
    "SignoutService": ".service.signout_service",
    "VERSION": ".version",
}


def load() -> tuple[Any, Any, Any, Any]:
    """Return Configuration, ApiClient, WriteService and ApiException of influxdb-client."""
    if _ROOT not in sys.modules:
        try:
            return _load_lean()
        except (ImportError, AttributeError):
            for name in [key for key in sys.modules if key == _ROOT or key.startswith(_ROOT + ".")]:
                del sys.modules[name]
    importlib.import_module(_ROOT)
    return _classes()


def _load_lean() -> tuple[Any, Any, Any, Any]:
    spec = importlib.util.find_spec(_ROOT)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_ROOT)
    folder = next(iter(spec.submodule_search_locations))
    for suffix in _PACKAGES:
        package = ModuleType(_ROOT + suffix)
        package.__path__ = [folder + suffix.replace(".", "/")]
        sys.modules[_ROOT + suffix] = package
        if suffix:
            setattr(sys.modules[_ROOT], suffix[1:], package)
    for name, module in _NAMES.items():
        setattr(sys.modules[_ROOT], name, getattr(importlib.import_module(_ROOT + module), name))
    return _classes()


def _classes() -> tuple[Any, Any, Any, Any]:
    return (
        importlib.import_module(_ROOT + ".configuration").Configuration,
        importlib.import_module(_ROOT + "._sync.api_client").ApiClient,
        importlib.import_module(_ROOT + ".service.write_service").WriteService,
        importlib.import_module(_ROOT + ".rest").ApiException,
    )
