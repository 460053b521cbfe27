"""Resources of the planning problem, typed. Only this module writes and reads their names.

A name is a key of the certificate in plan.json: `hall1.it_w`, `hall1.h100.gpus`, `hall1.heat_air_w`,
`site.facility_w`. In a problem of several sites it is `SITE:NAME`. A zone may have dots in its name, so that names are
never taken apart: `ResourceNames` looks them up among those of a problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from powerhall.runtime.decode.numbers_in import digits

__all__ = ["Resource", "ResourceKind", "ResourceNames", "is_blocks", "name_at_site"]

_BLOCK_SLASHES = 3


class ResourceKind(StrEnum):
    """The kind of a resource; the value is the end of its name."""

    GPUS = "gpus"
    """GPUs of a pool: one node type in one hall."""
    NODES = "nodes"
    IT_POWER = "it_w"
    RACK_POWER = "racks_w"
    """Power that the rows and racks of a hall carry together."""
    FACILITY_POWER = "facility_w"
    """Power of a site at the meter: what it follows from the IT power of the pools by their halls' curves."""
    METER_IT = "meter_it"
    """IT power of a pool, which the limit at the meter counts; no limit of its own."""
    SITE_POWER = "power_w"
    """Power of a site at the meter, in synthetic problems."""
    HEAT = "heat"
    """Heat of one medium that the plants of a hall take."""
    BLOCKS = "blocks"
    """Parts of a size that the blocks of a level in a pool hold."""
    LIMIT = "limit"
    """A limit that is named by its zone alone, such as a rack's."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A capacity per slot; `medium` is that of heat, `node_type` that of GPUs, `site` the site among several.

    `level` and `size` belong to blocks: parts of `size` nodes.
    """

    zone: str
    kind: ResourceKind = ResourceKind.LIMIT
    medium: str = ""
    node_type: str = ""
    site: str = ""
    level: str = ""
    size: int = 0

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
        if self.kind in (ResourceKind.GPUS, ResourceKind.METER_IT):
            name = f"{self.zone}.{self.node_type}.{self.kind}"
        elif self.kind is ResourceKind.HEAT:
            name = f"{self.zone}.heat_{self.medium}_w" if self.medium else f"{self.zone}.heat_w"
        elif self.kind is ResourceKind.BLOCKS:
            name = f"{self.zone}/{self.node_type}/{self.level}/{self.size}.{self.kind}"
        elif self.kind is ResourceKind.LIMIT:
            name = self.zone
        return name_at_site(self.site, name)


def name_at_site(site: str, name: str) -> str:
    """Return a name with its site in front; the plain name where `site` is empty."""
    return f"{site}:{name}" if site else name


def is_blocks(name: str) -> bool:
    """Whether a name, maybe of whole multiples, is that of parts in blocks: no other has four parts between slashes."""
    return name.partition("//")[0].endswith(f".{ResourceKind.BLOCKS}") and name.count("/") >= _BLOCK_SLASHES


class ResourceNames:
    """The names of a problem's resources, and of the same resources counted in whole multiples: `NAME//D`."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._numbers = {str(resource): number for number, resource in enumerate(resources)}

    def find(self, name: str) -> tuple[int, int] | None:
        """Return (resource number, divisor or 0) of a name; None where the problem has no such resource."""
        if name in self._numbers:
            return self._numbers[name], 0
        base, _, divisor = name.rpartition("//")
        by = digits(divisor)
        return (self._numbers[base], by) if base in self._numbers and by else None

    @staticmethod
    def multiple(resource: Resource, divisor: int) -> str:
        """Return the name of a resource counted in whole multiples of `divisor`."""
        return f"{resource}//{divisor}"
