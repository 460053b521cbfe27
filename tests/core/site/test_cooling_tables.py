"""Cooling plants in site.toml: what each kind needs, in one line where it lacks it."""

import pytest

from powerhall.runtime.errors import Rejected
from powerhall.site.site_file import read_site
from rigs.node_types import H100_NODE

SITE = (
    '[site]\nname = "dam"\n'
    + H100_NODE
    + """
[[halls]]
name = "a"
rows = [{name = "r", racks = [{node_type = "h100"}]}]

[[halls.cooling]]
name = "p"
capacity = "1 MW"
"""
)
CURVES = """
[halls.cooling.curves]
capacity_f_temp = [0.98, -2.896e-3, -8.971e-4, 1.031e-2, -7.432e-4, 1.454e-3]
eir_f_temp = [0.995, -4.829e-2, 4.674e-4, -1.159e-3, 5.763e-4, 2.148e-4]
eir_f_plr = [0.120, 0.140, 0.739]
evaporator_temp_c = [5.56, 10.0]
condenser_temp_c = [11.25, 23.89]
part_load = [0.19, 1.02]
cop = 5.42
"""
CHILLER = 'kind = "chiller"\nsupply_temp = "8 degC"\n'


def plant(tmp_path, text):
    (tmp_path / "site.toml").write_text(SITE + text)
    (found,) = read_site(tmp_path / "site.toml")[0].halls[0].plants
    return found


def test_a_chiller_has_its_curves_and_their_cop_unless_the_site_gives_one(tmp_path):
    made = plant(tmp_path, CHILLER + "units = 3\n" + CURVES)
    assert (made.cop, made.units, made.heat_rejection) == (5.42, 3, "tower")
    assert made.curves is not None
    assert plant(tmp_path, CHILLER + "cop = 4.0\n" + CURVES).cop == 4.0
    assert plant(tmp_path, 'kind = "fixed"\n').cop == 6.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CHILLER, "halls[0].cooling[0].curves: None: a chiller needs curves or curves_file, one of them"),
        (CHILLER + 'curves_file = "x.csv"\n' + CURVES, "a chiller needs curves or curves_file, one of them"),
        ('kind = "fixed"\n' + CURVES, "halls[0].cooling[0].curves: 'given': kind 'fixed' has no curve set"),
        (CHILLER + CURVES.replace("0.19", "1.19"), "cooling[0].curves: '': part_load must be a lowest ratio below 1"),
        (CHILLER + CURVES.replace(", 0.739]", "]"), "eir_f_plr must have 3 or 4 coefficients"),
        (CHILLER + CURVES.replace("0.995, ", ""), "halls[0].cooling[0].curves.eir_f_temp: "),
        (CHILLER.replace("8 ", "4 ") + CURVES, "supply_temp: '4 degC': must be at least 5.56 degC"),
        (CHILLER + 'curves_file = "none.csv"\n', "none.csv"),
        (CHILLER + "units = 65\n" + CURVES, "halls[0].cooling[0].units: 65: must be"),
        ('kind = "fixed"\nmin_part_load = 1.0\n', "cooling[0].min_part_load: 1.0: must be"),
        ('kind = "evaporative"\nsupply_temp = "28 degC"\n', "supply_temp: '28 degC': must be at least approach_k"),
        ('kind = "adiabatic"\nsupply_temp = "25 degC"\n', "must be at least 0.5 K above rated_ambient"),
    ],
)
def test_what_a_plant_cannot_be_is_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(Rejected) as refused:
        plant(tmp_path, text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
