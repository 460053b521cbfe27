"""Settings of the sampler: location of the node, intervals, and readings besides the GPUs."""

from typing import Annotated, Literal

import msgspec

from powerhall.store.schema import measurement

__all__ = ["RedfishSettings", "SamplerSettings", "SimulateSettings"]

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class RedfishSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Node power from the BMC by Redfish."""

    url: str
    """Base URL of the BMC, such as `https://10.0.0.7`."""
    user: str = ""
    """User of the BMC; empty reads without a login."""
    password_file: str = ""
    """File with the password."""
    auth: Literal["basic", "session"] = "basic"
    """`session` logs in once; `basic` sends the password with every request."""
    chassis: str = ""
    """Chassis id; empty finds the chassis that is the host itself, never a part of it such as a GPU baseboard."""
    max_power_w: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 50e3
    """Most that the node can draw in W; a higher reading is not believed."""
    interval_s: Seconds = 5.0
    """Time between two reads."""
    verify_tls: bool = True
    """Check the BMC's certificate."""
    ca_file: str = ""
    """Certificate authority of the BMC's certificate; empty uses the system's."""


class SimulateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Simulated GPUs in the place of the NVIDIA driver."""

    model: str = "H100"
    """Simulated GPU model: `A100`, `H100`, `H200`, `B200` or `L40S`."""
    gpus: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Number of simulated GPUs."""
    state_file: str = ""
    """A state file shared with other processes; made when it does not exist. Empty keeps the GPUs in this process."""
    script: str = ""
    """A fault script to play."""
    recording: str = ""
    """A recording to replay instead of physics."""
    seed: int = 1
    """Seed of noise and faults."""
    load: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.9
    """Utilization of the GPUs when nothing else drives them; not used with a state file that exists or a recording."""


class SamplerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the sampler."""

    node: str
    """Tag `node` of every point; the host name when it is not given."""
    site: str = ""
    """Tag `site` of every point."""
    hall: str = ""
    """Tag `hall` of every point."""
    rack: str = ""
    """Tag `rack` of every point."""
    fast_interval_s: Annotated[float, msgspec.Meta(ge=0.02, le=10)] = 0.1
    """Power and energy; below 0.05 s some sensors have nothing new."""
    interval_s: Seconds = 1.0
    """The full set; a record is the minimum, mean and maximum power of this interval."""
    slow_interval_s: Seconds = 10.0
    """Interval of the slow set: ECC, limits, thresholds, MIG, fabric."""
    identity_interval_s: Seconds = 600.0
    """Interval of the identity set: UUID, serial number, driver."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.2
    """Share of the fast interval by which a reading is moved at random, against aliasing with periodic kernels."""
    slow_call_s: Annotated[float, msgspec.Meta(ge=0.005, le=10)] = 0.05
    """A driver call that takes longer is left behind; the other GPUs are read without it."""
    hung_call_s: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.3
    """A driver call that takes longer quarantines its GPU."""
    fields: tuple[str, ...] = ()
    """Fields of the full set to read, by their names in the schema (`gpu`); empty reads all. Power and energy of the
    fast set are always there."""
    extra_fields: str = ""
    """A file of further NVML fields, one line each; empty reads none."""
    gpm: bool = True
    """Read the activity of multiprocessors, tensor cores, memory and links by NVML's GPM where the GPU has it."""
    state_dir: str = ""
    """Where energy totals and the last timestamp outlive a restart; empty keeps nothing."""
    flight_recorder: bool = True
    """Record power at the full rate around events."""
    rapl: bool = True
    """Read CPU and DRAM power from RAPL."""
    attribution: bool = True
    """Find out which job uses which GPU."""
    progress_dir: str = "/run/powerhall-progress"
    """Where jobs report what they have done, for J per token or step; need not be there, empty reads none."""
    user_hash_salt_file: str = ""
    """When set, job intervals carry a salted hash of the user; the salt is read from this file."""
    redfish: RedfishSettings | None = None
    """Node power from the BMC; absent reads none."""
    simulate: SimulateSettings | None = None
    """Simulated GPUs instead of the driver; absent uses the driver."""
    first_gpu: Annotated[int, msgspec.Meta(ge=0)] = 0
    """First GPU of this node in the library; above 0 only where one process simulates many nodes."""
    gpu_count: int | None = None
    """How many GPUs from `first_gpu` on belong to this node; all when not set."""

    def __post_init__(self) -> None:
        """Refuse fields that the full set does not have, by name."""
        known = {field.name for field in measurement("gpu").fields}
        for name in self.fields:
            if name not in known:
                raise ValueError(f"fields: {name!r}: is no field of `gpu`; docs/reference/schema.md lists them")
