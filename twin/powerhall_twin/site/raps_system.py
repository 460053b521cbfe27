"""A system configuration of ExaDigiT's RAPS as a site: nodes, switches, rectifiers and SIVOCs, CDUs.

RAPS (https://code.ornl.gov/exadigit/raps) adds up a node from CPU, GPUs, memory, NICs and disks, and gets from a node's
power to the rectifier's input by two affine losses, each `(output + constant) / efficiency`: the node's own converter
(SIVOC), and a rectifier that some nodes share. Both together are affine in the node's power, as a hall's losses are.
Switches are counted behind the losses, and the CDUs' pumps are a constant; cooling towers and pumps beyond them are a
model of their own in RAPS, and no part of this.
"""

from pathlib import Path

import msgspec

from powerhall.physics.plants.plant import Plant
from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.limits import MOST_TOML_BYTES
from powerhall.runtime.decode.yaml_data import decode_yaml
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site

__all__ = ["RapsSystem", "raps_node_power_w", "raps_site", "read_raps_system"]


class _System(msgspec.Struct, frozen=True):
    num_cdus: int
    racks_per_cdu: int
    nodes_per_rack: int
    chassis_per_rack: int
    switches_per_chassis: int
    nics_per_node: int
    nodes_per_rectifier: int
    cpus_per_node: int
    gpus_per_node: int
    missing_racks: tuple[int, ...] = ()


class _Power(msgspec.Struct, frozen=True):
    power_gpu_idle: float
    power_gpu_max: float
    power_cpu_idle: float
    power_cpu_max: float
    power_mem: float
    power_nic: float
    power_nvme: float
    power_switch: float
    power_cdu: float
    sivoc_loss_constant: float
    sivoc_efficiency: float
    rectifier_loss_constant: float
    rectifier_efficiency: float


class RapsSystem(msgspec.Struct, frozen=True):
    """The parts of a configuration that power follows from; powers in W."""

    system: _System
    power: _Power


def read_raps_system(path: Path) -> RapsSystem:
    """Read a configuration; what is missing or makes no power raises Rejected."""
    plain = decode_yaml(read_file(path, MOST_TOML_BYTES), str(path))
    try:
        found = msgspec.convert(plain, RapsSystem)
    except msgspec.ValidationError as error:
        raise Rejected(f"{path}: {error}") from None
    s, p = found.system, found.power
    counts = (s.num_cdus, s.racks_per_cdu, s.nodes_per_rack, s.nodes_per_rectifier, s.gpus_per_node)
    if min(counts) < 1 or not s.num_cdus * s.racks_per_cdu > len(set(s.missing_racks)):
        raise Rejected.field(str(path), "system", counts, "must have racks, nodes and GPUs")
    if not (0 < p.sivoc_efficiency <= 1 and 0 < p.rectifier_efficiency <= 1):
        efficiencies = (p.sivoc_efficiency, p.rectifier_efficiency)
        raise Rejected.field(str(path), "power", efficiencies, "efficiencies must be above 0, and 1 at most")
    return found


def raps_node_power_w(found: RapsSystem, cpu: float, gpu: float) -> float:
    """Return a node's power at these shares of the way from idle to full, behind its converter."""
    s, p = found.system, found.power
    cpus_w = s.cpus_per_node * (p.power_cpu_idle + cpu * (p.power_cpu_max - p.power_cpu_idle))
    gpus_w = s.gpus_per_node * (p.power_gpu_idle + gpu * (p.power_gpu_max - p.power_gpu_idle))
    return cpus_w + gpus_w + p.power_mem + s.nics_per_node * p.power_nic + p.power_nvme


def raps_site(found: RapsSystem, name: str) -> Site:
    """Return the system as a site of one hall: a row per CDU, the switches' power with the nodes'."""
    s, p = found.system, found.power
    rows, number = [], 0
    for cdu in range(s.num_cdus):
        racks = []
        for _ in range(s.racks_per_cdu):
            number += 1
            if number not in s.missing_racks:
                nodes = tuple(f"r{number:03d}n{node:03d}" for node in range(s.nodes_per_rack))
                racks.append(Rack(f"hall/cdu{cdu + 1}/r{number:03d}", "node", nodes))
        rows.append(RackRow(f"hall/cdu{cdu + 1}", tuple(racks)))
    count = sum(len(rack.nodes) for row in rows for rack in row.racks)
    switches_w = p.power_switch * s.switches_per_chassis * s.chassis_per_rack * count / s.nodes_per_rack
    idle_w, full_w = (raps_node_power_w(found, part, part) + switches_w / count for part in (0.0, 1.0))
    chain = p.sivoc_efficiency * p.rectifier_efficiency
    linear = 1.0 / chain - 1.0
    fixed_w = count * (
        p.sivoc_loss_constant / chain + p.rectifier_loss_constant / s.nodes_per_rectifier / p.rectifier_efficiency
    )
    losses = Losses(fixed_w=max(0.0, fixed_w - linear * switches_w), linear=linear)
    mode = Mode("full", "power_limit", full_w / s.gpus_per_node, 1.0)
    kind = NodeType("node", "raps", s.gpus_per_node, idle_w, full_w, idle_w, 1.0, (mode,))
    plant = Plant("cdu", "dry_cooler", 2.0 * count * full_w, pump_power_w=s.num_cdus * p.power_cdu)
    return Site(name, (Hall("hall", tuple(rows), (plant,), losses),), {"node": kind})
