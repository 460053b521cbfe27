"""Node power and inlet temperature from the BMC by Redfish (DMTF DSP0266): EnvironmentMetrics, or the older Power.

One GET per reading over a kept connection; discovery happens once and again after an error. Runs in a thread of its
own, because a BMC may take seconds.
"""

import urllib.parse
from collections.abc import Callable
from typing import Any

from powerhall.runtime.errors import Rejected, Retryable
from powerhall_agent.base.encoder import Fields
from powerhall_agent.base.redfish_client import RedfishClient, RedfishLogin
from powerhall_agent.settings.sampler_settings import RedfishSettings

__all__ = ["Redfish"]

_TIMEOUT_S = 5.0


class Redfish:
    """Collects `power_w` and `inlet_temp_c` of `node`."""

    def __init__(self, settings: RedfishSettings) -> None:
        """Check the address; nothing is sent yet."""
        self._settings = settings
        self._url = urllib.parse.urlsplit(settings.url)
        if self._url.scheme not in {"http", "https"} or not self._url.hostname:
            raise Rejected.field("redfish", "url", settings.url, "must be http(s)://HOST[:PORT]")
        login = RedfishLogin(
            f"{self._url.scheme}://{self._url.netloc}",
            _TIMEOUT_S,
            settings.user,
            settings.password_file,
            verify_tls=settings.verify_tls,
            ca_file=settings.ca_file,
        )
        self._client = RedfishClient(login)
        self._chassis = ""
        self._readings: tuple[tuple[str, Callable[[dict[str, Any]], Fields]], ...] = ()

    def collect(self) -> Fields:
        """Read; raises Retryable when the BMC does not answer as Redfish."""
        try:
            if not self._chassis:
                self._discover()
            fields: dict[str, float | str] = {}
            for path, extract in self._readings:
                fields.update(extract(self._get(path)))
            return fields
        except Retryable:
            self.close()
            raise
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            self.close()
            raise Retryable(f"{self._settings.url}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """End the connection; the next read looks for the chassis again."""
        self._client.close()
        self._chassis = ""

    def _get(self, path: str) -> dict[str, Any]:
        reply = self._client.get(path)
        if reply.status != 200:
            raise ValueError(f"GET {path}: HTTP {reply.status}")
        if not isinstance(reply.document, dict):
            raise TypeError(f"GET {path}: no JSON object")
        return reply.document

    def _discover(self) -> None:
        """Find the chassis and which of its resources hold power and inlet temperature."""
        root = self._url.path.rstrip("/") + "/redfish/v1"
        members = [entry["@odata.id"] for entry in self._get(f"{root}/Chassis").get("Members", [])]
        wanted = self._settings.chassis
        chosen = [path for path in members if not wanted or path.rstrip("/").rsplit("/", 1)[-1] == wanted]
        for path in chosen:
            chassis = self._get(path)
            readings = [
                (chassis[name]["@odata.id"], extract)
                for name, extract in (("EnvironmentMetrics", _environment), ("Power", _power), ("Thermal", _thermal))
                if name in chassis
            ]
            if any(extract is not _thermal for _, extract in readings):
                self._chassis = path
                self._readings = tuple(readings if "EnvironmentMetrics" not in chassis else readings[:1])
                return
        raise ValueError(f"no chassis{f' {wanted!r}' if wanted else ''} with power readings among {members}")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _pack(power_w: float | None, inlet_c: float | None) -> Fields:
    fields: dict[str, float] = {}
    if power_w is not None:
        fields["power_w"] = power_w
    if inlet_c is not None:
        fields["inlet_temp_c"] = inlet_c
    return fields


def _environment(resource: dict[str, Any]) -> Fields:
    power, temp = resource.get("PowerWatts") or {}, resource.get("TemperatureCelsius") or {}
    return _pack(_number(power.get("Reading")), _number(temp.get("Reading")))


def _power(resource: dict[str, Any]) -> Fields:
    found = [_number(control.get("PowerConsumedWatts")) for control in resource.get("PowerControl", [])]
    return _pack(next((power_w for power_w in found if power_w is not None), None), None)


def _thermal(resource: dict[str, Any]) -> Fields:
    for sensor in resource.get("Temperatures", []):
        context = f"{sensor.get('PhysicalContext', '')} {sensor.get('Name', '')}".lower()
        if "intake" in context or "inlet" in context:
            return _pack(None, _number(sensor.get("ReadingCelsius")))
    return {}
