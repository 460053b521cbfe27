"""Node power, inlet temperature and leak detectors from the BMC by Redfish (DMTF DSP0266).

The host's chassis and the resources that show its readings are found once, see `powerhall_agent.redfish.host`; then
each of them costs one GET per reading over a kept connection. Runs in a thread of its own, because a BMC may take
seconds.
"""

import urllib.parse

from powerhall.runtime.errors import Rejected, Retryable
from powerhall_agent.base.encoder import Fields
from powerhall_agent.redfish.client import RedfishClient, RedfishLogin
from powerhall_agent.redfish.host import Found, HostReadings
from powerhall_agent.redfish.leaks import node_leaks
from powerhall_agent.settings.sampler_settings import RedfishSettings

__all__ = ["Redfish"]

_TIMEOUT_S = 5.0


class Redfish:
    """Collects `power_w`, `inlet_temp_c` and `leak_state` of `node`."""

    def __init__(self, settings: RedfishSettings) -> None:
        """Check the address; nothing is sent yet."""
        url = urllib.parse.urlsplit(settings.url)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise Rejected.field("redfish", "url", settings.url, "must be http(s)://HOST[:PORT]")
        login = RedfishLogin(
            f"{url.scheme}://{url.netloc}",
            _TIMEOUT_S,
            settings.user,
            settings.password_file,
            settings.auth,
            verify_tls=settings.verify_tls,
            ca_file=settings.ca_file,
        )
        self._client = RedfishClient(login)
        root = url.path.rstrip("/").removesuffix("/redfish/v1") + "/redfish/v1"
        self._host = HostReadings(self._client, settings.chassis, root, settings.max_power_w)
        self._leaks = node_leaks(self._client, root)

    def collect(self) -> Fields:
        """Read; raises Retryable when the BMC does not answer as Redfish or shows no plausible power."""
        try:
            power_w, inlet_c = self._host.read()
        except Retryable:
            self.close()
            raise
        leak_state = None
        try:
            leak_state = self._leaks.read()
        except Retryable:  # what a BMC says of leaks costs no reading of power
            self.close()
        found = {"power_w": power_w, "inlet_temp_c": inlet_c, "leak_state": leak_state}
        return {name: value for name, value in found.items() if value is not None}

    def find(self) -> Found:
        """Return where the node's power was found."""
        return self._host.find()

    def close(self) -> None:
        """End the connection; what was found is kept."""
        self._client.close()
