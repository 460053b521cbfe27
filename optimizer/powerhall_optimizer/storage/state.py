"""Content of storage now: by its meter, else by the last plan, else by the site file.

A meter is the measurement `facility` with the unit's name as `device`: the point `soc_percent` of a battery or a tank,
`supply_temp_c` of a loop.
"""

import math

import msgspec

from powerhall.plan.plan import Plan, Snapshot
from powerhall.site.storage import Storage
from powerhall.store import Query, Select, Store, what_answers

__all__ = ["with_storage_content"]

_FRESH_S = 900.0


def with_storage_content(snapshot: Snapshot, previous: Plan | None, store: Store | None, now_s: float) -> Snapshot:
    """Return the snapshot with the known content of its storage; unchanged for a site without storage."""
    storages = {storage.name: storage for storage in snapshot.site.storages}
    if not storages:
        return snapshot
    found = _foreseen(snapshot, previous)
    if store is not None:
        found |= _measured(store, snapshot.site.name, storages, now_s)
    kept = {name: held_j for name, held_j in sorted(found.items()) if name in storages}
    return msgspec.structs.replace(snapshot, stored_j=kept)


def _foreseen(snapshot: Snapshot, previous: Plan | None) -> dict[str, float]:
    """Return the content that the last plan has for now; of a plan that starts now, that of its snapshot."""
    if previous is None or previous.snapshot.site.name != snapshot.site.name:
        return {}
    slot, off = divmod(snapshot.start_s - previous.snapshot.start_s, previous.snapshot.slot_s)
    if slot == 0:
        return dict(previous.snapshot.stored_j)
    if off or not 0 < slot <= previous.snapshot.slots:
        return {}
    return {entry.name: float(entry.stored_j[slot]) for entry in previous.storages if slot < len(entry.stored_j)}


def _measured(store: Store, site: str, storages: dict[str, Storage], now_s: float) -> dict[str, float]:
    query = Query("facility", (Select("value", "last"), Select("quality", "last")), {"site": site}, ("device", "point"))
    found: dict[str, float] = {}
    for row in what_answers(store, lambda _hall, _error: None)(query, now_s - _FRESH_S, now_s + 1.0):
        storage = storages.get(row.tags["device"])
        value, quality = row.number("value"), row.number("quality")
        if storage is None or value is None or not math.isfinite(value) or quality != 1.0:
            continue
        if storage.kind == "loop" and row.tags["point"] == "supply_temp_c":
            found[storage.name] = round(storage.at_temp_j(value))
        elif storage.kind != "loop" and row.tags["point"] == "soc_percent":
            found[storage.name] = round(storage.capacity_j * min(max(value, 0.0), 100.0) / 100.0)
    return found
