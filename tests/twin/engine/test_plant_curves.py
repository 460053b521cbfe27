"""The engine's hall power is that of the models in core, for every kind of plant, weather and load."""

import msgspec
import numpy as np
import pytest
from twin_jobs import START_S

from powerhall.physics.cooling import hall_load
from powerhall.physics.plants.chiller_curves import ChillerCurves
from powerhall.physics.plants.kinds import PLANT_KINDS
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.site.topology import Losses
from powerhall_twin.engine.columns import POOL_NW
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.site.scenario import Scenario

CURVES = ChillerCurves(
    capacity_f_temp=(0.95, 0.02, 0.0004, -0.004, -0.0001, 0.0001),
    eir_f_temp=(0.6, -0.01, 0.0003, 0.012, 0.0002, -0.0004),
    eir_f_plr=(0.2, 0.3, 0.5),
    evaporator_temp_c=(5.0, 25.0),
    condenser_temp_c=(15.0, 40.0),
    part_load=(0.15, 1.05),
)
WEATHERS = (Weather(-5.0, -7.0), Weather(18.0, 12.0), Weather(31.0, 22.0), Weather(44.0, 27.0), Weather(60.0, 35.0))


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("serves", ["all", "liquid"])
@pytest.mark.parametrize("kind", PLANT_KINDS)
def test_every_kind_draws_what_its_model_says(site, kind, serves, units):
    assert CURVES.check() == ""
    more = {"curves": CURVES} if kind == "chiller" else {}
    plants = (
        Plant("p1", kind, 150e3, serves, 24.0, fan_power_w=4e3, pump_power_w=2e3, units=units, **more),
        Plant("p2", "dry_cooler", 80e3, serves, 45.0, fan_power_w=2e3, pump_power_w=1e3, min_part_load=0.2),
    )
    if serves == "liquid":
        plants += (Plant("p3", "fixed", 90e3, "air", fan_power_w=1e3),)
    hall = msgspec.structs.replace(site.halls[0], plants=plants, losses=Losses(2e3, 0.025, 6e-8))
    on = msgspec.structs.replace(site, halls=(hall,))
    state = SimState.of(Scenario(on, (), START_S, START_S + 60))
    for weather in WEATHERS:
        for it_w in np.linspace(0.0, 400e3, 23):
            state.world.now.pools[POOL_NW] = round(it_w * 1e9)
            state.set_weather(weather)
            load = hall_load(hall, 0.75 * it_w, 0.25 * it_w, weather)
            assert state.world.now.hall_w[0] == pytest.approx(load.facility_power_w, rel=1e-9)
