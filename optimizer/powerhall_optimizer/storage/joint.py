"""Storage of several sites in their joint problem."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from powerhall_optimizer.problem.join_sites import JointProblem
from powerhall_optimizer.problem.resources import name_at_site
from powerhall_optimizer.storage.model import StorageModel

__all__ = ["joint_storage"]


def joint_storage(joined: JointProblem, models: Sequence[StorageModel]) -> StorageModel:
    """Return the storage units of all sites as those of the joint problem, named `SITE:STORE`."""
    found = [
        replace(
            store,
            storage=msgspec.structs.replace(store.storage, name=name_at_site(name, store.storage.name)),
            effects=tuple(replace(effect, resource=effect.resource + first) for effect in store.effects),
        )
        for name, first, model in zip(joined.names, joined.first_resource, models, strict=True)
        for store in model.units
    ]
    return StorageModel(joined.built.problem.slots, joined.built.problem.slot_s, tuple(found))
