"""Resources of the planning problem, typed. Only this module writes and reads their names.

A name is a key of the certificate in plan.json: `hall1.it_w`, `hall1.h100.gpus`, `hall1.heat_air_w`,
`site.facility_w`. In a problem of several sites it is `SITE:NAME`. A zone may have dots in its name, so that names are
never taken apart: `ResourceNames` looks them up among those of a problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Resource", "ResourceKind", "ResourceNames", "name_at_site"]


class ResourceKind(StrEnum):
    """The kind of a resource; the value is the end of its name."""

    GPUS = "gpus"
    """GPUs of a pool: one node type in one hall."""
    NODES = "nodes"
    IT_POWER = "it_w"
    RACK_POWER = "racks_w"
    """Power that the rows and racks of a hall carry together."""
    FACILITY_POWER = "facility_w"
    """Power of a site at the meter, as weighted IT power."""
    SITE_POWER = "power_w"
    """Power of a site at the meter, in synthetic problems."""
    HEAT = "heat"
    """Heat of one medium that the plants of a hall take."""
    LIMIT = "limit"
    """A limit that is named by its zone alone, such as a rack's."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A capacity per slot; `medium` is that of heat, `node_type` that of GPUs, `site` the site among several."""

    zone: str
    kind: ResourceKind = ResourceKind.LIMIT
    medium: str = ""
    node_type: str = ""
    site: str = ""

    @property
    def is_gpus(self) -> bool:
        """Counted in GPUs or nodes."""
        return self.kind in (ResourceKind.GPUS, ResourceKind.NODES)

    @property
    def is_cooling(self) -> bool:
        """Heat that plants take."""
        return self.kind is ResourceKind.HEAT

    @property
    def is_zone_budget(self) -> bool:
        """The power budget of a zone, whose price is the price of the zone."""
        return self.kind in (ResourceKind.IT_POWER, ResourceKind.FACILITY_POWER)

    def __str__(self) -> str:
        """Return the name."""
        name = f"{self.zone}.{self.kind}"
        if self.kind is ResourceKind.GPUS:
            name = f"{self.zone}.{self.node_type}.gpus"
        elif self.kind is ResourceKind.HEAT:
            name = f"{self.zone}.heat_{self.medium}_w" if self.medium else f"{self.zone}.heat_w"
        elif self.kind is ResourceKind.LIMIT:
            name = self.zone
        return name_at_site(self.site, name)


def name_at_site(site: str, name: str) -> str:
    """Return a name with its site in front; the plain name where `site` is empty."""
    return f"{site}:{name}" if site else name


class ResourceNames:
    """The names of a problem's resources, and of the same resources counted in whole multiples: `NAME//D`."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._numbers = {str(resource): number for number, resource in enumerate(resources)}

    def find(self, name: str) -> tuple[int, int] | None:
        """Return (resource number, divisor or 0) of a name; None where the problem has no such resource."""
        if name in self._numbers:
            return self._numbers[name], 0
        base, _, divisor = name.rpartition("//")
        if base not in self._numbers or not divisor.isdecimal() or int(divisor) == 0:
            return None
        return self._numbers[base], int(divisor)

    @staticmethod
    def multiple(resource: Resource, divisor: int) -> str:
        """Return the name of a resource counted in whole multiples of `divisor`."""
        return f"{resource}//{divisor}"
