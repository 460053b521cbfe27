"""Chillers by EnergyPlus curve sets: the published formulas within their limits, safe values outside of them."""

import csv
from pathlib import Path

import msgspec
import pytest

from powerhall.physics.plants.chiller import Chiller
from powerhall.physics.plants.chiller_curves import ChillerCurves
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.runtime.errors import Rejected
from powerhall.site.chiller_files import read_curves

DATA = Path(__file__).parents[5] / "shared" / "data" / "chillers" / "energyplus_chillers.csv"
CURVES = ChillerCurves(  # Carrier 19XR, 742 kW, COP 5.42, variable speed
    (9.797101e-01, -2.895701e-03, -8.970718e-04, 1.031440e-02, -7.431651e-04, 1.453508e-03),
    (9.946139e-01, -4.829399e-02, 4.674277e-04, -1.158726e-03, 5.762583e-04, 2.148192e-04),
    (1.202277e-01, 1.396384e-01, 7.394038e-01),
    (5.56, 10.0),
    (11.25, 23.89),
    (0.19, 1.02),
    cop=5.42,
    name="Carrier 19XR 742 kW",
)
PLANT = Plant("c", "chiller", 742e3, supply_temp_c=8.0, cop=5.42, curves=CURVES, heat_rejection="air")
HEADER = (
    "kind,name,QEva_flow_nominal,COP_nominal,PLRMin,PLRMax,mCon_flow_nominal,TEvaLvgMin,TEvaLvgMax,"
    "TConEntMin,TConEntMax,capFunT,EIRFunT,EIRFunPLR,TConLvgMin,TConLvgMax\n"
)
ROWS = (
    "EIR,carrier,-742000,5.42,0.19,1.02,1000*0.01956,273.15+5.56,273.15+10.00,273.15+11.25,273.15+23.89,"
    '"{9.797101E-01,-2.895701E-03,-8.970718E-04,1.031440E-02,-7.431651E-04,1.453508E-03}",'
    '"{9.946139E-01,-4.829399E-02,4.674277E-04,-1.158726E-03,5.762583E-04,2.148192E-04}",'
    '"{1.202277E-01,1.396384E-01,7.394038E-01}",,\n'
    "ReformulatedEIR,mcquay,-471200,5.89,0.10,1.08,1000*0.01924,273.15+7.22,273.15+12.78,,,"
    '"{-4.862465E-01,-7.293218E-02,-8.514849E-03,1.463106E-01,-4.474066E-03,9.813408E-03}",'
    '"{3.522647E-01,-3.311790E-02,-1.374491E-04,3.469525E-02,-3.624458E-04,6.749423E-04}",'
    '"{8.215998E-01,-2.209969E-02,-1.725652E-05,-3.831448E-02,1.896948E-01,2.308518E-02,0.0,1.349969E-02,0.0,0.0}",'
    "273.15+18.81,273.15+35.09\n"
)


def formula(te, tc, load):
    """Return capacity and power over the reference ones by the formulas of EnergyPlus, written out."""
    a, b, c = CURVES.capacity_f_temp, CURVES.eir_f_temp, CURVES.eir_f_plr
    cap = a[0] + a[1] * te + a[2] * te**2 + a[3] * tc + a[4] * tc**2 + a[5] * te * tc
    eir = b[0] + b[1] * te + b[2] * te**2 + b[3] * tc + b[4] * tc**2 + b[5] * te * tc
    plr = load / cap
    return cap, cap * eir * (c[0] + c[1] * plr + c[2] * plr**2)


@pytest.mark.parametrize("air_c", [15.0, 18.0, 20.5, 23.0])
@pytest.mark.parametrize("load", [0.25, 0.5, 0.75, 0.9])
def test_within_the_limits_power_is_the_formula_of_energyplus(air_c, load):
    _, share = formula(8.0, air_c, load)
    power_w = kind_of(PLANT).power_w(PLANT, load * 742e3, Weather(air_c, air_c - 5))
    assert power_w == pytest.approx(742e3 / 5.42 * share, rel=2e-3)


def test_capacity_is_the_formula_s_but_never_above_the_rated_one():
    cap, _ = formula(8.0, 23.5, 0.5)
    assert kind_of(PLANT).capacity_w(PLANT, Weather(23.5, 15.0)) == pytest.approx(742e3 * min(1.0, cap), rel=1e-3)


def test_a_condenser_above_the_fit_loses_capacity_and_draws_more_for_each_kelvin():
    kind = Chiller()
    at = [Weather(air_c, 20.0) for air_c in (24.0, 30.0, 36.0, 60.0)]
    capacities = [kind.capacity_w(PLANT, air) for air in at]
    powers = [kind.power_w(PLANT, 300e3, air) for air in at]
    assert capacities == sorted(capacities, reverse=True)
    assert capacities[2] < 0.93 * capacities[0]
    assert powers == sorted(powers)
    assert powers[2] > 1.3 * powers[0]


def test_below_its_lowest_part_load_it_runs_part_of_the_time():
    kind, air = kind_of(PLANT), Weather(20.0, 15.0)
    least_w = 0.19 * kind.capacity_w(PLANT, air)
    assert kind.power_w(PLANT, 0.0, air) == 0.0
    assert kind.power_w(PLANT, least_w / 2, air) == pytest.approx(kind.power_w(PLANT, least_w, air) / 2)


def test_tower_dry_cooler_and_air_at_the_condenser_follow_their_own_temperature():
    air = Weather(30.0, 16.0)
    powers = {}
    for way in ("tower", "dry", "air"):
        plant = msgspec.structs.replace(PLANT, heat_rejection=way)
        powers[way] = kind_of(plant).power_w(plant, 400e3, air)
        assert (kind_of(plant).water_l_per_h(plant, 400e3, air) > 0) == (way == "tower")
    assert powers["tower"] < powers["air"] < powers["dry"]


def test_free_cooling_runs_no_compressor():
    plant = msgspec.structs.replace(PLANT, heat_rejection="dry", supply_temp_c=20.0, pump_power_w=1e3)
    cold = Weather(5.0, 3.0)
    assert kind_of(plant).power_w(plant, 742e3, cold) == 1e3
    without = msgspec.structs.replace(plant, free_cooling=False)
    assert kind_of(without).power_w(without, 742e3, cold) > 5e4


def test_a_table_gives_the_curve_set_of_a_name(tmp_path):
    path = tmp_path / "chillers.csv"
    path.write_text(HEADER + ROWS)
    carrier = read_curves(path, "carrier")
    assert msgspec.structs.replace(carrier, name=CURVES.name) == CURVES
    mcquay = read_curves(path, "mcquay")
    assert (mcquay.type, mcquay.condenser_temp_c) == ("reformulated_eir", (18.81, 35.09))
    assert mcquay.condenser_rise_k == pytest.approx(471200 * (1 + 1 / 5.89) / (4186 * 19.24), rel=1e-9)
    other = tmp_path / "chillers.json"
    other.write_bytes(msgspec.json.encode({"chillers": [CURVES]}))
    assert read_curves(other, None) == CURVES


@pytest.mark.parametrize(
    ("old", "new", "name", "said"),
    [
        ("", "", None, "curve_set: None: must name one of the 2 curve sets of the file"),
        ("", "", "trane", "curve_set: 'trane': must be the name of one curve set, such as 'carrier'"),
        ("5.42", "five", "carrier", "line 2: COP_nominal: 'five': must be a number"),
        ("5.42", "nan", "carrier", "line 2: COP_nominal: 'nan': must be a number"),
        ("0.19,", "1.19,", "carrier", "part_load must be a lowest ratio below 1"),
        (",1.453508E-03}", "}", "carrier", "line 2: "),
        ("9.797101E-01", "-9.797101E-01", "carrier", "the curves are not between 0.05 and 5"),
        ("273.15+23.89", "273.15+3.89", "carrier", "condenser_temp_c must be a lower and a higher temperature"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_in_one_line(tmp_path, old, new, name, said):
    path = tmp_path / "chillers.csv"
    path.write_text(HEADER + ROWS.replace(old, new, 1) if old else HEADER + ROWS)
    with pytest.raises(Rejected) as refused:
        read_curves(path, name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not DATA.exists(), reason="the EnergyPlus data set is not at hand")
def test_every_curve_set_of_energyplus_is_monotone_or_refused():
    with DATA.open() as lines:
        names = [row["name"] for row in csv.DictReader(lines)]
    refused = 0
    for name in names[::12]:
        try:
            curves = read_curves(DATA, name)
        except Rejected:
            refused += 1
            continue
        plant = Plant("c", "chiller", 1e6, supply_temp_c=10.0, cop=curves.cop, curves=curves, units=2)
        kind, before = kind_of(plant), [0.0] * 11
        for wet_c in range(0, 36, 5):
            air = Weather(wet_c + 8.0, float(wet_c))
            powers = [kind.power_w(plant, 1e5 * part, air) for part in range(11)]
            assert powers == sorted(powers)
            fits = 10 * kind.capacity_w(plant, air) / 1e6
            pairs = list(zip(powers, before, strict=True))
            assert all(now >= then - 1 for part, (now, then) in enumerate(pairs) if part <= fits)
            before = powers
    assert refused < len(names[::12]) / 4
