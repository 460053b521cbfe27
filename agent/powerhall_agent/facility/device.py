"""Settings that devices of all protocols have."""

from typing import Annotated

import msgspec

from powerhall.runtime.decode.numbers_in import digits

__all__ = ["Device", "Interval", "Pause"]

Interval = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]
Pause = Annotated[float, msgspec.Meta(ge=0, le=60)]


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol"):
    """The keys of every device."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Tag `device` of its points: letters, digits, `_`, `.` and `-`."""
    address: str
    """`HOST` or `HOST:PORT`; of Redfish a URL such as `https://HOST`."""
    map: str
    """Name of a built-in map, or a `.toml` file beside facility.toml."""
    hall: str = ""
    """Tag `hall` of its points."""
    member: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]+$")] = "1"
    """Replaces `{member}` in the map: chassis or CDU id, PDU unit, inlet."""
    interval_s: Interval = 5.0
    """Time between two reads."""
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 2.0
    """Longest wait for one answer."""
    pause_s: Pause = 0.0
    """Least time between two requests to this device."""
    weather: bool = False
    """Copy `dry_bulb_c` and `wet_bulb_c` of this device to the measurement `weather`."""

    @property
    def host(self) -> str:
        """The host of HOST[:PORT]; IPv6 in brackets."""
        return self.address.rpartition(":")[0].strip("[]") if self._has_port() else self.address.strip("[]")

    def port(self, default: int) -> int:
        """The port of HOST[:PORT]."""
        return int(self.address.rpartition(":")[2]) if self._has_port() else default

    def _has_port(self) -> bool:
        host, colon, port = self.address.rpartition(":")
        return bool(colon) and digits(port) is not None and (":" not in host or host.endswith("]"))

    def check_host(self) -> None:
        """Refuse an address that is not HOST[:PORT]."""
        if not self.host or any(char in self.address for char in "/ @") or not 0 < self.port(1) < 65536:
            raise ValueError(f"{self.name}: address: {self.address!r}: must be HOST or HOST:PORT")
