"""A demand charge in a plan's value: USD for each kW by which the plan raises the month's peak so far."""

import msgspec

__all__ = ["DemandTerm"]


class DemandTerm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A charge with the peak of the month so far in W at the meter, and the slots whose power counts for it.

    A plan pays `usd_per_kw` for what its highest planned power in these slots is above that peak.
    """

    name: str
    usd_per_kw: float
    peak_w: float
    slots: tuple[int, ...]
