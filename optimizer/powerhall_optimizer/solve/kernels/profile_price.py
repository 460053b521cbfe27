"""Prices of profiles: what one unit of each costs from the first slot on, at prices per resource and slot."""

from __future__ import annotations

from typing import NamedTuple

from powerhall_optimizer.jit import kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.kernel_arrays import Floats, ProblemArrays

__all__ = ["ProfileTariffs", "sum_profile_prices"]


class ProfileTariffs(NamedTuple):
    """What a unit of each profile pays for energy: its energy per slot, at the prices of a row of `tariff`."""

    row: Ints  # [P] -1: nothing
    energy: Ints  # [P]
    tariff: Ints  # [rows, T]


@kernel
def sum_profile_prices(problem: ProblemArrays, tariffs: ProfileTariffs, price: Floats, prefix: Floats) -> None:
    """Write the prefix sums over slots of the price of one unit of each profile into `prefix` [P, T + 1]."""
    slots = price.shape[1]
    for profile in range(len(tariffs.row)):
        sums = prefix[profile]
        sums[:] = 0.0
        for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
            amount = float(problem.profile_amount[use])
            row = price[problem.profile_resource[use]]
            for slot in range(slots):
                sums[slot + 1] += amount * row[slot]
        if tariffs.row[profile] >= 0:
            rate = tariffs.tariff[tariffs.row[profile]]
            for slot in range(slots):
                sums[slot + 1] += float(tariffs.energy[profile] * rate[slot])
        for slot in range(slots):
            sums[slot + 1] += sums[slot]
