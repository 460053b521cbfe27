"""`powerhall-agent schema`: JSON Schemas of the files of a GPU host and of the host of the meters."""

from powerhall.runtime.command_line import Commands
from powerhall.runtime.schema_command import Json, SchemaFile, add_schema_parser, struct_schema

__all__ = ["FILES", "add_parser"]


def _agent() -> Json:
    """Describe agent.toml; without `node` the agent takes the name of the host."""
    import msgspec

    from powerhall_agent.settings.agent_settings import AgentSettings

    (found,), tables = msgspec.json.schema_components([AgentSettings], ref_template="#/$defs/{name}")
    tables["SamplerSettings"]["required"].remove("node")
    return {**found, "$defs": tables}


def _capper() -> Json:
    from powerhall_agent.commands.cap import CapperSettings

    return struct_schema(CapperSettings)


def _facility() -> Json:
    from powerhall_agent.facility.gateway_settings import FacilitySettings

    return struct_schema(FacilitySettings)


def _map() -> Json:
    """Describe a map of each protocol; which one it is, its key `protocol` says."""
    import msgspec

    from powerhall_agent.facility.registry import PROTOCOLS

    found, tables = msgspec.json.schema_components(
        [protocol.map_file for protocol in PROTOCOLS.values()], ref_template="#/$defs/{name}"
    )
    for name, arm in zip(PROTOCOLS, found, strict=True):
        table = tables[str(arm["$ref"]).rpartition("/")[2]]
        table["properties"]["protocol"] = {"const": name}
    return {"anyOf": list(found), "$defs": tables}


FILES = {
    "agent.toml": SchemaFile("settings of the agent", _agent),
    "capper.toml": SchemaFile("settings of the capper", _capper),
    "facility.toml": SchemaFile("meters and plants that the gateway reads", _facility),
    "map.toml": SchemaFile("points of a device of your own", _map),
}


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    add_schema_parser(commands, "powerhall-agent", FILES)
