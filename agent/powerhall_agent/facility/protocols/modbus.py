"""Modbus TCP by pymodbus: registers that lie close together are read in one request."""

import logging
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from powerhall.runtime.errors import Retryable
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, MapFile, Point
from powerhall_agent.facility.reader import DeviceProtocol, Pacer, ReadResult

__all__ = ["MODBUS", "Block", "ModbusDevice", "ModbusPoint", "ModbusReader", "decode", "plan_blocks"]

_Untyped: TypeAlias = Any
"""Answers of pymodbus, whose kinds differ by its version."""
_MOST_LOST = 2
_GAP = 8
"""Unused registers that are read along when that saves a request."""
_REGISTERS = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "u64": 4, "i64": 4, "f64": 4}
_FORMATS = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}
_NOT_AVAILABLE = {"u16": 0xFFFF, "u32": 0xFFFFFFFF, "u64": 0xFFFFFFFFFFFFFFFF}
_NOT_AVAILABLE |= {"i16": -0x8000, "i32": -0x80000000, "i64": -0x8000000000000000}
"""What devices show where they have no reading ("unimplemented" of the SunSpec Information Model); of floats NaN."""
_FUNCTIONS = {"holding": 3, "input": 4}
_EXCEPTIONS = {1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure"}
"""Modbus Application Protocol V1.1b3, section 7; other codes mean that the device is busy or not reached."""


class ModbusDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="modbus"):
    """A Modbus TCP device, or one behind a gateway by its `unit`."""

    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    """Unit id of a device behind a gateway."""
    max_registers: Annotated[int, msgspec.Meta(ge=4, le=125)] = 100
    """Most registers in one request; lower it for devices that refuse long reads."""

    def __post_init__(self) -> None:
        """Refuse an address that is no HOST[:PORT]."""
        self.check_host()


class ModbusPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Registers at `address`, counted from 0 as they go over the wire (a manual's 30001 or 40001 is 0)."""

    kind: Literal["holding", "input"]
    address: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    type: Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]
    byte_order: Literal["big", "little"] = "big"
    word_order: Literal["big", "little"] = "big"

    @property
    def registers(self) -> int:
        """How many registers the value takes."""
        return _REGISTERS[self.type]


@dataclass(frozen=True, slots=True)
class Block:
    """Registers that one request reads."""

    kind: str
    address: int
    count: int
    points: tuple[ModbusPoint, ...]


def plan_blocks(points: Sequence[ModbusPoint], max_registers: int) -> list[Block]:
    """Group points into as few requests as `max_registers` allows."""
    blocks: list[Block] = []
    for point in sorted(points, key=lambda entry: (entry.kind, entry.address)):
        last, end = blocks[-1] if blocks else None, point.address + point.registers
        if last is not None and last.kind == point.kind and point.address <= last.address + last.count + _GAP:
            count = max(last.count, end - last.address)
            if count <= max_registers:
                blocks[-1] = Block(last.kind, last.address, count, (*last.points, point))
                continue
        blocks.append(Block(point.kind, point.address, point.registers, (point,)))
    return blocks


def decode(point: ModbusPoint, registers: Sequence[int]) -> float:
    """Turn a point's registers, in the order in which they were read, into the number they stand for.

    The number that stands for no reading is NaN.
    """
    words = list(registers) if point.word_order == "big" else list(reversed(registers))
    byteorder = ">" if point.byte_order == "big" else "<"
    data = struct.pack(f"{byteorder}{len(words)}H", *words)
    (value,) = struct.unpack(f">{_FORMATS[point.type]}", data)
    return math.nan if value == _NOT_AVAILABLE.get(point.type) else float(value)


class ModbusReader:
    """Reads one unit over a connection that is kept."""

    def __init__(self, device: ModbusDevice, points: DeviceMap) -> None:
        """Prepare; nothing is sent yet."""
        from pymodbus.client import ModbusTcpClient
        from pymodbus.exceptions import ConnectionException, ModbusException, ModbusIOException

        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._failures = (ModbusException, OSError, struct.error)
        self._reasons = {ConnectionException: "cannot connect", ModbusIOException: "no valid answer within the timeout"}
        self._device = device
        self._pacer = Pacer(device.pause_s)
        modbus = [point for point in points.points if isinstance(point, ModbusPoint)]
        self._blocks = plan_blocks(modbus, device.max_registers)
        self._client = ModbusTcpClient(device.host, port=device.port(502), timeout=device.timeout_s, retries=0)
        self._used = False
        self._lost = 0
        """Kept connections that gave no answer."""

    def read(self) -> ReadResult:
        """Read all blocks; one with a register that the device does not have is read point by point from then on."""
        answer, blocks = ReadResult(), []
        for block in self._blocks:
            split = [block]
            problem = self._read_block(block, answer)
            if problem and len(block.points) > 1:
                split = _singles(block)
                for single in split:
                    self._note(single, self._read_block(single, answer), answer)
            else:
                self._note(block, problem, answer)
            blocks += split
        self._blocks = blocks
        if self._lost >= _MOST_LOST:
            self.close()
        return answer

    def close(self) -> None:
        """End the connection."""
        self._client.close()  # type: ignore[no-untyped-call]
        self._used = False

    @staticmethod
    def _note(block: Block, problem: str, answer: ReadResult) -> None:
        if problem:
            answer.problems.update({point.name: problem for point in block.points})

    def _reason(self, error: Exception) -> str:
        found = (text for kind, text in self._reasons.items() if isinstance(error, kind))
        return next(found, f"{type(error).__name__}: {error}")

    def _request(self, block: Block) -> _Untyped:
        """Send a request; where a kept connection gives no answer, once more over a new one.

        A device may close an idle connection, or forget it and stay silent. One that has done so twice gets a new
        connection for every read.
        """
        call = self._client.read_holding_registers if block.kind == "holding" else self._client.read_input_registers
        while True:
            self._pacer.wait()
            kept = self._used
            try:
                reply = call(block.address, count=block.count, device_id=self._device.unit)
                self._used = True
                return reply
            except self._failures as error:
                self.close()  # so that a late reply is not taken for the next one
                if not kept:
                    where = f"{self._device.address}: unit {self._device.unit}: {block.kind} {block.address}"
                    raise Retryable(f"{where}: {self._reason(error)}") from None
                self._lost += 1

    def _read_block(self, block: Block, answer: ReadResult) -> str:
        """Read one block into the answer; return why the device refuses it, "" when it does not."""
        reply = self._request(block)
        where = f"{self._device.address}: unit {self._device.unit}: {block.kind} {block.address}"
        if reply.isError():
            if reply.exception_code not in _EXCEPTIONS:
                raise Retryable(f"{where}: exception {reply.exception_code}: the device is busy or not reached")
            return f"{block.kind} {block.address}: {_EXCEPTIONS[reply.exception_code]}"
        if len(reply.registers) != block.count or reply.function_code != _FUNCTIONS[block.kind]:
            self.close()
            what = f"{len(reply.registers)} registers by function {reply.function_code}"
            raise Retryable(f"{where}: {what} came back, {block.count} were asked for")
        for point in block.points:
            start = point.address - block.address
            answer.values[point.name] = decode(point, reply.registers[start : start + point.registers])
        return ""


def _singles(block: Block) -> list[Block]:
    """Split a block into one per point."""
    return [Block(block.kind, point.address, point.registers, (point,)) for point in block.points]


MODBUS = DeviceProtocol("modbus", ModbusDevice, MapFile[ModbusPoint], ModbusReader)
