"""Plant kinds by name. To add a kind, add a module beside this file, a row here, a test and an entry in the docs."""

from collections.abc import Mapping

from powerhall.physics.plants.adiabatic import Adiabatic
from powerhall.physics.plants.chiller import Chiller
from powerhall.physics.plants.dry_cooler import DryCooler
from powerhall.physics.plants.evaporative import Evaporative
from powerhall.physics.plants.fixed import Fixed
from powerhall.physics.plants.plant import Plant, PlantKind
from powerhall.physics.plants.staging import Staged, least_part_load
from powerhall.physics.plants.tower_chiller import TowerChiller

__all__ = ["PLANT_KINDS", "kind_of"]

_KINDS: tuple[PlantKind, ...] = (Fixed(), DryCooler(), TowerChiller(), Chiller(), Adiabatic(), Evaporative())

PLANT_KINDS: Mapping[str, PlantKind] = {kind.name: kind for kind in _KINDS}
_STAGED: Mapping[str, PlantKind] = {kind.name: Staged(kind) for kind in _KINDS}


def kind_of(plant: Plant) -> PlantKind:
    """Return the kind of a plant, with its units; an unknown one raises ValueError that names plant and choices."""
    kind = PLANT_KINDS.get(plant.kind)
    if kind is None:
        raise ValueError(f"plant {plant.name}: kind {plant.kind!r}: must be one of {', '.join(PLANT_KINDS)}")
    if plant.kind == "chiller" and plant.curves is None:
        raise ValueError(f"plant {plant.name}: kind 'chiller' needs curves")
    return _STAGED[plant.kind] if plant.units > 1 or least_part_load(plant) > 0 else kind
