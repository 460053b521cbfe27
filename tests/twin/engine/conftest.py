"""A site with all that the meters of a building read."""

import msgspec
import pytest
from twin_jobs import START_S

from powerhall.physics.plants.plant import Plant
from powerhall.site.topology import Feed, Mode, NodeType, Rack, RackRow
from powerhall.timeseries import Series


@pytest.fixture(scope="module")
def mixed(site):
    """The demo's site with a second node type in hall 2, a feed, a chiller of two units and a curtailment."""
    small = NodeType("s4", "T9", 4, 800.0, 3600.0, 1000.0, 0.3, (Mode("full", "power_limit", 800.0, 1.0),))
    hall1, hall2, hall3 = site.halls
    rack = Rack("hall2/c/s01", "s4", tuple(f"s{n}" for n in range(6)), 18e3)
    hall2 = msgspec.structs.replace(hall2, rows=(*hall2.rows, RackRow("hall2/c", (rack,))))
    plant = Plant("units", "tower_chiller", 255e3, units=3, min_part_load=0.3, fan_power_w=5e3, pump_power_w=3e3)
    hall1 = msgspec.structs.replace(hall1, plants=(plant,))
    grid = Series((0.0, START_S + 3600, START_S + 7200), (700e3, 420e3, 650e3))
    return msgspec.structs.replace(
        site,
        halls=(hall1, hall2, hall3),
        node_types={**site.node_types, "s4": small},
        feeds=(Feed("f1", ("hall1/a", "hall2"), 230e3),),
        budgets={site.name: grid},
    )
