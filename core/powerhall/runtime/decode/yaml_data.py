"""YAML from outside, of limited size and depth, and without aliases, which expand to what no limit of bytes holds."""

from powerhall.runtime.decode.bytes_in import utf8
from powerhall.runtime.decode.limits import MOST_DEPTH, MOST_DOCUMENT_BYTES, enlarged, size_text
from powerhall.runtime.decode.plain_data import check_plain
from powerhall.runtime.errors import ConfigError, Rejected

__all__ = ["decode_yaml"]


def decode_yaml(body: bytes, source: str) -> object:
    """Decode YAML into plain data; what is malformed, too deep or has an alias raises Rejected.

    ConfigError where PyYAML is missing, which the extra `optimizer` brings.
    """
    try:
        import yaml
    except ImportError:
        raise ConfigError(f"{source}: YAML needs the extra 'optimizer'; pip install 'powerhall[optimizer]'") from None
    if len(body) > enlarged(MOST_DOCUMENT_BYTES):
        raise Rejected(f"{source}: larger than {size_text(enlarged(MOST_DOCUMENT_BYTES))}, the most that is read")
    text, depth = utf8(body, source), 0
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise Rejected(f"{source}: nested deeper than {MOST_DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):
                raise Rejected(
                    f"{source}: line {event.start_mark.line + 1 if event.start_mark else 1}: must not have aliases"
                )
        found: object = yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Rejected(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    check_plain(found, source)
    return found
