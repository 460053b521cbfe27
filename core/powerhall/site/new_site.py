"""A first site.toml with comments, from the halls, the nodes and the GPU of a site."""

from dataclasses import dataclass

from powerhall.runtime.errors import Rejected
from powerhall.site.gpu_catalogue import CATALOGUE, GpuServer, speed_at
from powerhall.site.site_tables import NAME, is_name

__all__ = ["NewSite", "site_text"]

_MODES = (1.0, 0.8, 0.6)
"""Shares of the rated power of a GPU of which a mode is made."""
_HEADROOM = 1.05
"""Limits that `init` is not told are this much above what all nodes draw: nothing is held back before they are set."""


@dataclass(frozen=True, slots=True)
class NewSite:
    """What a person says about a new site; powers in W, None where unknown."""

    name: str
    gpu: str
    halls: tuple[tuple[str, int], ...]
    nodes_per_rack: int = 4
    power_limit_w: float | None = None
    node_stem: str = "gn"


def site_text(new: NewSite) -> str:
    """Return the text of site.toml; names and sizes that a site file cannot have raise Rejected."""
    for field, name in (("--name", new.name), *(("--hall", hall) for hall, _ in new.halls)):
        if not is_name(name):
            raise Rejected.field("init", field, name, NAME)
    if new.gpu not in CATALOGUE:
        raise Rejected.field("init", "--gpu", new.gpu, f"must be one of {', '.join(CATALOGUE)}")
    server = CATALOGUE[new.gpu]
    nodes = sum(count for _, count in new.halls)
    parts = [_head(new, server, nodes), _node_type(server)]
    first = 1
    for hall, count in new.halls:
        parts.append(_hall(new, server, hall, first, count))
        first += count
    return "\n".join(parts)


def _head(new: NewSite, server: GpuServer, nodes: int) -> str:
    limit_w = new.power_limit_w or _HEADROOM * _HEADROOM * 1.25 * nodes * server.max_power_w
    why = "at the meter: IT, losses and cooling"
    why += "" if new.power_limit_w else "; enough for all nodes: put your contract here"
    return f"""\
# A first description of {new.name}, written by `powerhall-optimizer init`. docs/reference/site-file.md has every key.
# Check it after each change:  powerhall-optimizer check site.toml
[site]
name = "{new.name}"
power_limit = "{_power(limit_w)}"        # {why}
# timezone = "America/Phoenix"      # of times without an offset; absent is UTC
# losses = {{ fixed = "5 kW", linear = 0.05 }}   # UPS and transformers
"""


def _node_type(server: GpuServer) -> str:
    name = server.gpu.lower()
    idle = "as published" if server.idle_power_w else "no published figure: replace it by a reading"
    modes = "\n".join(_mode(server, share) for share in _MODES)
    return f"""\
# {server.server}: {server.gpus} x {server.gpu}.
# Source: {server.source}
[node_types.{name}]
gpu = "{server.gpu}"
gpus = {server.gpus}
idle_power = "{_power(server.idle_w)}"        # {idle}
max_power = "{_power(server.max_power_w)}"
liquid_fraction = {server.liquid_fraction:g}       # share of the heat that goes to liquid
modes = [                     # gpu_power: a busy GPU with its share of the node; speed: measure yours
{modes}
]
"""


def _mode(server: GpuServer, share: float) -> str:
    limit_w = max(server.least_limit_w, round(share * server.gpu_power_w, -1))
    busy_w = int(server.max_power_w / server.gpus) - (server.gpu_power_w - limit_w)
    return (
        f'  {{ name = "p{limit_w:.0f}", gpu_power = "{busy_w:.0f} W", speed = {speed_at(share):g}, '
        f'gpu_power_limit = "{limit_w:.0f} W" }},'
    )


def _hall(new: NewSite, server: GpuServer, hall: str, first: int, count: int) -> str:
    digits = max(2, len(str(sum(nodes for _, nodes in new.halls))))
    racks = []
    for number, start in enumerate(range(first, first + count, new.nodes_per_rack), 1):
        last = min(start + new.nodes_per_rack, first + count) - 1
        span = f"[{start:0{digits}d}-{last:0{digits}d}]" if last > start else f"{start:0{digits}d}"
        limit_w = _HEADROOM * (last - start + 1) * server.max_power_w
        racks.append(
            f'  {{ name = "r{number:02d}", node_type = "{server.gpu.lower()}", nodes = "{new.node_stem}{span}", '
            f'power_limit = "{_power(limit_w)}" }},'
        )
    heat_w = _HEADROOM * count * server.max_power_w
    return f"""\
[[halls]]
name = "{hall}"
power_limit = "{_power(heat_w)}"        # IT power; enough for all nodes: put the limit of the hall's feeds here
{_plants(server, heat_w)}
[[halls.rows]]
name = "a"
racks = [                     # limits of IT power: put those of the racks' feeds here
{chr(10).join(racks)}
]
"""


def _plants(server: GpuServer, heat_w: float) -> str:
    if not server.liquid_fraction:
        plants = [f'  {{ name = "plant", kind = "fixed", capacity = "{_power(heat_w)}", cop = 5.0 }},']
    else:
        liquid_w, air_w = heat_w * server.liquid_fraction, heat_w * (1 - server.liquid_fraction)
        plants = [
            f'  {{ name = "{medium}", serves = "{medium}", kind = "fixed", capacity = "{_power(w)}", cop = {cop} }},'
            for medium, w, cop in (("liquid", liquid_w, 12.0), ("air", air_w, 5.0))
        ]
    lines = "\n".join(plants)
    return f"""\
cooling = [                   # heat; `fixed` ignores the weather: see docs/guide/cooling.md for real plants
{lines}
]
"""


def _power(power_w: float) -> str:
    for size, unit in ((1e6, "MW"), (1e3, "kW")):
        if power_w >= size:
            return f"{power_w / size:.4g} {unit}"
    return f"{power_w:.0f} W"
