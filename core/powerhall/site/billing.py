"""What site.toml says of bills: who owns jobs, and which meters the bill must equal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from powerhall.jobs.owners import Owners, read_owners
from powerhall.runtime.errors import Rejected
from powerhall.site.quantities import Capacity

__all__ = ["Allowance", "AllowanceTable", "Billing", "BillingTable", "DemandChargeTable", "billing_of", "owners_of"]

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e12)]
MonthNumber = Annotated[int, msgspec.Meta(ge=1, le=12)]
AllowanceKind = Literal["energy", "cost", "co2"]
_FILES = {"cost": "planning.prices", "co2": "planning.carbon"}


class AllowanceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the jobs of a tenant may use in a calendar month of the site: one of `energy`, `cost_usd` and `co2_kg`."""

    tenant: str
    """Tenant, as jobs and the file of owners name it."""
    energy: Capacity | None = None
    """Energy at the meter, such as `40 MWh`."""
    cost_usd: Positive | None = None
    """Cost of that energy in USD."""
    co2_kg: Positive | None = None
    """CO2 of that energy in kg."""


class DemandChargeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A charge on the highest power at the meter in a calendar month of the site, in all hours or in some of them."""

    name: str
    """Name of the charge, such as `grid` or `4CP`."""
    usd_per_kw: Positive
    """USD per kW of the month's highest mean over `interval_min`."""
    interval_min: Literal[5, 15, 30, 60] = 15
    """Minutes over which power is averaged."""
    months: tuple[MonthNumber, ...] = ()
    """Months in which it is charged, 1 to 12; absent is all."""
    from_hour: Annotated[int, msgspec.Meta(ge=0, le=23)] = 0
    """First hour of the day, in the site's time, in which power counts."""
    to_hour: Annotated[int, msgspec.Meta(ge=1, le=24)] = 24
    """Hour of the day in which it counts no more; after `from_hour`."""
    weekdays_only: bool = False
    """Whether only power from Monday to Friday counts."""


class BillingTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who pays for energy, and by which meters; see the guide on bills."""

    owners: str | None = None
    """CSV file with the project and tenant of jobs and users, by `job`, `user_hash`, `project` and `tenant`."""
    meters: tuple[str, ...] = ()
    """Devices of the gateway whose `power_w` together is the power of the site at the grid; absent: the roll-up's."""
    reported: str | None = None
    """CSV file of what the yearly report needs and nothing here measures, by month: water, reused heat, renewables."""
    budgets: tuple[AllowanceTable, ...] = ()
    """What tenants may use in a month; plans start nothing that could exceed it."""
    demand_charges: tuple[DemandChargeTable, ...] = ()
    """Charges on the month's highest power; bills and plans tell them."""


class Allowance(msgspec.Struct, frozen=True):
    """What a tenant may use in a calendar month, in J, USD or g, and how people write it."""

    tenant: str
    kind: AllowanceKind
    limit: float
    text: str


class Billing(msgspec.Struct, frozen=True):
    """The table with its files beside site.toml."""

    owners: Path | None = None
    meters: tuple[str, ...] = ()
    reported: Path | None = None
    budgets: tuple[Allowance, ...] = ()
    demand_charges: tuple[DemandChargeTable, ...] = ()


def billing_of(path: Path, raw: BillingTable, files: Mapping[AllowanceKind, str | None]) -> Billing:
    """Return the table of a site file; `path` is that file. A budget that is none raises Rejected.

    `files` are those of prices and of carbon, without which nothing is known of what a budget of cost or CO2 limits.
    """

    def beside(name: str | None) -> Path | None:
        return None if name is None else path.parent / name

    budgets = tuple(_allowance(str(path), f"billing.budgets[{i}]", entry) for i, entry in enumerate(raw.budgets))
    seen: set[tuple[str, str]] = set()
    for i, budget in enumerate(budgets):
        if (budget.tenant, budget.kind) in seen:
            raise Rejected.field(str(path), f"billing.budgets[{i}].tenant", budget.tenant, "must be once of each kind")
        if budget.kind in files and files[budget.kind] is None:
            allowed = f"needs {_FILES[budget.kind]}, or nothing is known of what it limits"
            raise Rejected.field(str(path), f"billing.budgets[{i}]", budget.text, allowed)
        seen.add((budget.tenant, budget.kind))
    for i, charge in enumerate(raw.demand_charges):
        if charge.to_hour <= charge.from_hour:
            field = f"billing.demand_charges[{i}].to_hour"
            raise Rejected.field(str(path), field, charge.to_hour, f"must be after from_hour ({charge.from_hour})")
    return Billing(beside(raw.owners), raw.meters, beside(raw.reported), budgets, raw.demand_charges)


def owners_of(billing: Billing) -> Owners:
    """Return the owners of jobs; refuse rows by a user's hash for a tenant with a budget: queues have no hashes."""
    owners = read_owners(billing.owners)
    limited = sorted(owners.tenants_of_users() & {each.tenant for each in billing.budgets})
    if limited:
        allowed = "must stand in rows of jobs or projects, since it has a budget and no queue has users' hashes"
        raise Rejected.field(str(billing.owners), "tenant", limited[0], allowed)
    return owners


def _allowance(source: str, field: str, raw: AllowanceTable) -> Allowance:
    found: list[Allowance] = []
    if raw.energy is not None:
        found.append(Allowance(raw.tenant, "energy", raw.energy.value, raw.energy.text))
    if raw.cost_usd is not None:
        found.append(Allowance(raw.tenant, "cost", raw.cost_usd, f"{raw.cost_usd:,.0f} USD"))
    if raw.co2_kg is not None:
        found.append(Allowance(raw.tenant, "co2", raw.co2_kg * 1000, f"{raw.co2_kg:,.0f} kg CO2"))
    if len(found) != 1:
        given = " and ".join(budget.kind for budget in found) or None
        raise Rejected.field(source, field, given, "must have one of energy, cost_usd and co2_kg")
    if not raw.tenant:
        raise Rejected.field(source, f"{field}.tenant", raw.tenant, "must name a tenant")
    return found[0]
