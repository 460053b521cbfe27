"""What doctor finds at the node's BMC: the chassis that is the host, and where it shows its power."""

from collections.abc import Iterator

from powerhall.runtime.errors import PowerhallError
from powerhall_agent.settings.sampler_settings import RedfishSettings

__all__ = ["bmc_findings"]


def bmc_findings(settings: RedfishSettings | None) -> Iterator[tuple[str, str, str]]:
    """Yield level, text and remedy of a read of the BMC; nothing where the settings name none."""
    if settings is None:
        return
    from powerhall_agent.collectors.redfish import Redfish  # loads an HTTP client that most nodes do not need

    bmc = Redfish(settings)
    try:
        fields, found = bmc.collect(), bmc.find()
    except PowerhallError as error:
        remedy = 'correct [sampler.redfish]; auth = "session" where Basic is refused; chassis names the host\'s'
        yield "bad", str(error), remedy
        return
    finally:
        bmc.close()
    intake = "" if found.intake is None else f", inlet {fields['inlet_temp_c']:.0f} degC by {found.intake.name}"
    yield "ok", f"node power {fields['power_w']:.0f} W by {found.chassis} {found.power.name} ({found.why}){intake}", ""
