"""`schema` of a program: JSON Schemas of the files that it reads and writes, for editors that complete and check."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.files import replace_file

__all__ = ["Json", "SchemaFile", "add_schema_parser", "struct_schema"]

Json = dict[str, object]
_TEXT = """Prints the JSON Schema (2020-12) of a file, or with --out writes those of all as NAME.schema.json:

{files}

An editor takes it by its settings, and for TOML by a first line such as `#:schema ./site.toml.schema.json` (Even Better
TOML, taplo). JSON takes "$schema" by the editor's settings alone: Powerhall refuses keys that it does not know.

examples:
  {program} schema {first} > {first}.schema.json
  {program} schema --out schemas
"""


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """A kind of file: what it is, and what makes its schema, which may import what reads it."""

    text: str
    schema: Callable[[], Json]


def struct_schema(kind: object) -> Json:
    """Return the schema of a type that msgspec reads, such as a Struct or a list of them."""
    found: Json = msgspec.json.schema(kind)
    return found


def add_schema_parser(commands: Commands, program: str, files: Mapping[str, SchemaFile]) -> None:
    """Add the sub-command for the files of a program."""
    listed = "\n".join(f"  {name:<15} {file.text}" for name, file in files.items())
    parser = add_command(
        commands,
        "schema",
        lambda args: _run(args, files),
        help="print the JSON Schema of a file for editors",
        description=_TEXT.format(files=listed, program=program, first=next(iter(files))),
    )
    parser.add_argument("file", nargs="?", choices=tuple(files), metavar="FILE", help=", ".join(files))
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the schemas of all files into this folder")
    parser.add_argument("--json", action="store_true", help="print the list of written files as JSON")


def _run(args: argparse.Namespace, files: Mapping[str, SchemaFile]) -> int:
    if args.out is None:
        if args.file is None:
            raise Rejected.field("command line", "FILE", "", f"must be one of {', '.join(files)}, or give --out")
        sys.stdout.write(_text(args.file, files[args.file]))
        return EXIT_OK
    args.out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, file in files.items():
        path = args.out / f"{name}.schema.json"
        replace_file(path, _text(name, file).encode())
        paths.append(str(path))
    sys.stdout.write(json.dumps({"files": paths}) + "\n" if args.json else "".join(f"{path}\n" for path in paths))
    return EXIT_OK


def _text(name: str, file: SchemaFile) -> str:
    head: Json = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"Powerhall {name}"}
    return json.dumps({**head, **file.schema()}, indent=2) + "\n"
