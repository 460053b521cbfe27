"""Reads the assignment of devices to pods from the kubelet: one unary gRPC call over its pod-resources socket.

The call is small enough for a hand-made HTTP/2 exchange (RFC 9113, gRPC over HTTP/2, protocol buffers), so that the
agent needs no gRPC library. Service v1.PodResourcesLister, method List.
"""

import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from powerhall.runtime.errors import Retryable

__all__ = ["SOCKET", "list_pods", "parse_pods"]

SOCKET: Final = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
_PATH: Final = "/v1.PodResourcesLister/List"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 0x1, 0x4, 0x1, 0x8
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_MOST_BYTES: Final = 16 << 20
_UUID: Final = re.compile(r"(?:GPU|MIG)-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def list_pods(path: Path = SOCKET, timeout_s: float = 2.0) -> dict[str, str]:
    """Return `namespace/pod` by NVIDIA device id (a GPU or MIG UUID); raises Retryable without an answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            return parse_pods(_call(connection, time.monotonic() + timeout_s))
    except (OSError, ValueError, struct.error) as error:
        raise Retryable(f"{path}: the kubelet's pod resources cannot be read: {error}") from error


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _header(name: str, value: str) -> bytes:
    """Encode a header field literally, without indexing and without Huffman coding (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _call(connection: socket.socket, end_s: float) -> bytes:
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (":method", "POST"), (":scheme", "http"), (":path", _PATH), (":authority", "localhost"),
            ("content-type", "application/grpc"), ("te", "trailers"),
        )
    )  # fmt: skip
    connection.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0)
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, bytes(5))
    )
    body = b""
    ended = False
    while not ended:
        if time.monotonic() > end_s or len(body) > _MOST_BYTES:
            raise ValueError("the answer is too large, or was not complete in time")
        kind, flags, payload = _read_frame(connection)
        if kind == _SETTINGS and not flags & _ACK:
            connection.sendall(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            connection.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind in {_RST, _GOAWAY}:
            raise ValueError("the call was refused")
        elif kind == _DATA:
            body += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            if payload:
                window = struct.pack(">I", len(payload))
                connection.sendall(_frame(_WINDOW, 0, 0, window) + _frame(_WINDOW, 0, 1, window))
        ended = kind in {_DATA, _HEADERS} and bool(flags & _END_STREAM)
    if len(body) < 5 or body[0] != 0:
        raise ValueError("the answer holds no message")
    (length,) = struct.unpack(">I", body[1:5])
    return body[5 : 5 + length]


def _read_frame(connection: socket.socket) -> tuple[int, int, bytes]:
    head = _read(connection, 9)
    length = int.from_bytes(head[:3], "big")
    return head[3], head[4], _read(connection, length)


def _read(connection: socket.socket, length: int) -> bytes:
    if length > _MOST_BYTES:
        raise ValueError("a frame is too long")
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))  # of a frame, whose length is limited
        if not part:
            raise ValueError("the connection was closed")
        data += part
    return data


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a message is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the length-delimited fields of a protocol buffer message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a message is cut off")
            yield key >> 3, data[position : position + length]
            position += length
        elif kind == 0:
            _, position = _varint(data, position)
        else:
            position += {1: 8, 5: 4}[kind] if kind in {1, 5} else len(data)


def parse_pods(message: bytes) -> dict[str, str]:
    """Read a ListPodResourcesResponse into `namespace/pod` by device id, of device plugins and of DRA claims.

    Pods that share a claim have its devices each with `::namespace/pod` behind it.
    """
    found: dict[str, str] = {}
    for _, pod in _fields(message):
        parts = list(_fields(pod))
        names = {number: value.decode("utf-8", "replace") for number, value in parts if number in {1, 2}}
        name = f"{names.get(2, '')}/{names.get(1, '')}"
        for container in (value for number, value in parts if number == 3):
            for device in _devices_of(container):
                key = device if found.get(device, name) == name else f"{device}::{name}"
                found[key] = name
    return found


def _devices_of(container: bytes) -> Iterator[str]:
    """Yield the ids of the NVIDIA devices of a container: field 2 is of device plugins, field 5 of DRA claims."""
    for number, value in _fields(container):
        if number == 2:
            texts = [(part, text.decode("utf-8", "replace")) for part, text in _fields(value)]
            if any(part == 1 and text.startswith("nvidia.com/") for part, text in texts):
                yield from (text for part, text in texts if part == 2)
        elif number == 5:
            for resource in (entry for part, entry in _fields(value) if part == 4):
                yield from _claimed(resource)


def _claimed(resource: bytes) -> Iterator[str]:
    """Yield the device of a claim: the UUID in the name of its CDI device where it has one, else its own name."""
    parts = list(_fields(resource))
    texts = {number: value.decode("utf-8", "replace") for number, value in parts if number in {2, 4}}
    driver, device = texts.get(2, ""), texts.get(4, "")
    if driver != "nvidia.com" and not driver.endswith(".nvidia.com"):
        return
    names = [value.decode("utf-8", "replace") for number, cdi in parts if number == 1 for _, value in _fields(cdi)]
    uuids = [uuid[0] for name in names if (uuid := _UUID.search(name))]
    yield uuids[0] if uuids else device
