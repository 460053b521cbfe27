"""Changes valid input at random: bytes, words, numbers, lines, cells, and the values inside JSON."""

import gzip
import json
import random
import re
import zlib
from collections.abc import Callable, Sequence

__all__ = ["mutate"]

NUMBERS = (
    b"0", b"-0", b"-1", b"1", b"1e308", b"-1e308", b"1e400", b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf",
    b"1" * 5000, b"1e-320", b"0.1", b"2147483648", b"9007199254740993", b"18446744073709551616",
    b"253402300800", b"-62135596801", b"1e18", b"1e20", b"-1e15", b"99999999999999", b"1e9999999999", b"0x7f",
    b"1_000", "²".encode(), "٣".encode(),
)  # fmt: skip
TOKENS = (
    b"null", b"true", b'""', b"[]", b"{}", b'"x"', b"[[]]", b",", b";", b":", b'"', b"'", b"\\", b"\n", b"\r",
    b"\t", b"#", b"..", b"gn[1-200000000]", b"a[1]" * 40, b"[" * 3000, b"{" * 3000, b'{"a":' * 200,
    b"x" * 140_000, b"\xff", b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"\xc0\xaf",
    b"\xe2\x80\xa8", b"a.b.c.d" * 30, b"2024-13-45T99:99:99Z", b"9999-12-31T23:59:59+00:00", b"0001-01-01",
    b"1-1", b"../..", b"%s%n", b"<!ENTITY a 'b'>", b"<a>" * 300, b"&a;",
)  # fmt: skip
VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 10**30, -(10**18), 2**63, 1e308, -1e308, 5e-324, "", "x", "\ud800", "\x00",
    "a" * 2000, "1e308 MW", "-5 kW", "0 W", "nan kW", "1e308 min", "gn[1-200000000]", "gn[2-1]", "gn[", [],
    [[]], {}, {"": {}}, [None], "2024-02-30", 253402300800, "réseau", [1, 2, 3], {"a": [1]}, 0.0, "running",
    "1" * 5000,
)  # fmt: skip
_WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9-]*")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def mutate(seeds: Sequence[bytes], draw: random.Random) -> bytes:
    """Return a changed copy of one of the seeds; now and then a seed itself, so that the way past the checks is run."""
    body = draw.choice(seeds)
    if draw.random() < 0.01:
        return body
    packed = body[:2] == b"\x1f\x8b"
    if packed:
        body = gzip.decompress(body)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        body = draw.choice(CHANGES)(body, draw, seeds)
    return _packed(body, draw) if packed else body


def _packed(body: bytes, draw: random.Random) -> bytes:
    kind = draw.randrange(20)
    if kind == 0:
        return zlib.compress(body)
    if kind == 1:
        return BOMB
    found = gzip.compress(body, 1)
    return _bytes(found, draw, ()) if kind < 8 else found


BOMB = gzip.compress(bytes(48 << 20))
"""48 MiB in 48 KB: at a thousand times its size, far above the ratio that is believed."""


def _bytes(body: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(body) + 1)
    kind = draw.randrange(6)
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body[:at] + bytes([draw.randrange(256)]) + body[at + 1 :]
    if kind == 2:
        return body[:at] + body[at + draw.randrange(1, 30) :]
    if kind == 3:
        return body[:at] + bytes([1 << draw.randrange(8) ^ (body[at] if at < len(body) else 0)]) + body[at + 1 :]
    if kind == 4:
        end = at + draw.randrange(1, 200)
        return body[:end] + body[at:end] * draw.choice((1, 2, 50)) + body[end:]
    return body[:at] + bytes(draw.choice((0, 255, 128, 91, 34)) for _ in range(draw.choice((1, 2, 4)))) + body[at:]


def _token(body: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(body) + 1)
    return body[:at] + draw.choice(TOKENS) + body[at:]


def _near(pattern: re.Pattern[bytes], body: bytes, draw: random.Random) -> re.Match[bytes] | None:
    return pattern.search(body, draw.randrange(len(body) + 1)) or pattern.search(body)


def _number(body: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    found = _near(_NUMBER, body, draw)
    return body if found is None else body[: found.start()] + draw.choice(NUMBERS) + body[found.end() :]


def _word(body: bytes, draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    found, other = _near(_WORD, body, draw), _near(_WORD, draw.choice(seeds or (body,)), draw)
    if found is None or other is None:
        return body
    word = other[0] if draw.random() < 0.7 else draw.choice(TOKENS)
    return body[: found.start()] + word + body[found.end() :]


def _line(body: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    lines = body.split(b"\n")
    at, to = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, lines[at])
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    else:
        lines[at] = draw.choice(TOKENS)
    return b"\n".join(lines)


def _cell(body: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    lines = body.split(b"\n")
    at = draw.randrange(len(lines))
    cells = re.split(rb"([,|=])", lines[at])
    cells[draw.randrange(len(cells))] = draw.choice(NUMBERS + TOKENS)
    return b"\n".join([*lines[:at], b"".join(cells), *lines[at + 1 :]])


def _value(body: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    """Put another value into JSON, rename or remove a key, or move a part to another place."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return _number(body, draw, ())
    places = [(data, None)] if not isinstance(data, dict | list) or not data else []
    stack = [data]
    while stack:
        here = stack.pop()
        if isinstance(here, dict):
            places += [(here, key) for key in here]
            stack += here.values()
        elif isinstance(here, list):
            places += [(here, key) for key in range(len(here))][:40]
            stack += here[:40]
    holder, key = draw.choice(places)
    if key is None:
        return json.dumps(draw.choice(VALUES)).encode()
    kind = draw.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(("", "x", "\n", str(key) + "_"))] = holder.pop(key)
    elif kind == 2:
        other, name = draw.choice(places)
        holder[key] = json.loads(json.dumps(other[name]))
    elif kind == 3 and isinstance(holder, list):
        holder.append(holder[key])
    elif kind == 4 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = draw.choice((-holder[key], holder[key] * 1000, holder[key] + 1, holder[key] / 7, 0))
    else:
        holder[key] = draw.choice(VALUES)
    return json.dumps(data).encode()


def _splice(body: bytes, draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    other = draw.choice(seeds or (body,))
    return body[: draw.randrange(len(body) + 1)] + other[draw.randrange(len(other) + 1) :]


CHANGES: tuple[Change, ...] = (
    _bytes,
    _bytes,
    _token,
    _number,
    _number,
    _word,
    _line,
    _cell,
    _value,
    _value,
    _value,
    _splice,
)
