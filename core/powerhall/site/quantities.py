"""Quantities of site.toml: text with a unit, read while the file is decoded and kept as written for later refusals."""

from typing import ClassVar

from powerhall.site.curtailment import parse_ramp
from powerhall.site.storage import W_CLASSES, parse_heat_capacity
from powerhall.units import parse_energy, parse_power, parse_temperature

__all__ = [
    "Capacity",
    "HeatCapacity",
    "Power",
    "Quantity",
    "RampRate",
    "RatedPower",
    "SupplyLimit",
    "Temperature",
    "quantity_hook",
]


def _above_zero(value: float) -> float:
    if not 0.0 < value < 1e15:
        raise ValueError("must be above zero")
    return value


def _supply_limit(text: str) -> float:
    if text in W_CLASSES:
        return W_CLASSES[text]
    try:
        return parse_temperature(text)
    except ValueError:
        classes = ", ".join(W_CLASSES)
        raise ValueError(f"must be a temperature such as '32 degC', or an ASHRAE class: {classes}") from None


class Quantity:
    """A quantity as written (`text`) and in the base unit that its class names (`value`).

    A plain class: msgspec would decode a dataclass or a struct as a table, without the hook.
    """

    __slots__ = ("text", "value")
    example: ClassVar[str]

    def __init__(self, text: str) -> None:
        """Read text such as `"1.2 MW"`; anything else raises ValueError with what is allowed."""
        self.text = text
        self.value = self.parse(text)

    def __repr__(self) -> str:
        """Show the quantity as written."""
        return f"{type(self).__name__}({self.text!r})"

    @staticmethod
    def parse(text: str) -> float:
        """Return the value in the base unit; anything else raises ValueError with what is allowed."""
        raise NotImplementedError(text)


class Power(Quantity):
    """A power in W, zero or more."""

    __slots__ = ()
    parse = staticmethod(parse_power)
    example = "1.2 MW"


class RatedPower(Quantity):
    """A power in W above zero."""

    __slots__ = ()
    example = "1.2 MW"

    @staticmethod
    def parse(text: str) -> float:
        """Return the value in the base unit."""
        return _above_zero(parse_power(text))


class Capacity(Quantity):
    """An energy in J above zero."""

    __slots__ = ()
    example = "4 MWh"

    @staticmethod
    def parse(text: str) -> float:
        """Return the value in the base unit."""
        return _above_zero(parse_energy(text))


class HeatCapacity(Quantity):
    """A heat capacity in J/K above zero, or the volume of water that has it."""

    __slots__ = ()
    example = "80 MJ/K"

    @staticmethod
    def parse(text: str) -> float:
        """Return the value in the base unit."""
        return _above_zero(parse_heat_capacity(text))


class Temperature(Quantity):
    """A temperature in degC."""

    __slots__ = ()
    parse = staticmethod(parse_temperature)
    example = "32 degC"


class SupplyLimit(Quantity):
    """The highest supply temperature in degC, or the ASHRAE class that sets it."""

    __slots__ = ()
    parse = staticmethod(_supply_limit)
    example = "W32"


class RampRate(Quantity):
    """A change of power in W per s."""

    __slots__ = ()
    parse = staticmethod(parse_ramp)
    example = "5 MW/min"


def quantity_hook(kind: type, value: object) -> object:
    """Decode a quantity; the `dec_hook` of site.toml."""
    if not issubclass(kind, Quantity):
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise ValueError(f"must be text with a unit, such as {kind.example!r}")  # noqa: TRY004 - refused by msgspec
    return kind(value)
