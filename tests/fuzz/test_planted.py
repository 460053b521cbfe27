"""The fuzz itself: a fault of each kind, planted among inputs that are read, is found and costs no other input."""

import contextlib
import ctypes
import faulthandler
import mmap
import os
import signal
import time

import fork_server
import pytest
from attempt import Limits
from fork_server import Batch, run_batches
from registry import Entry

from powerhall.runtime.errors import Rejected

INPUTS = 300


def leaves_a_trace():
    return {}["absent"]


def spins():
    while True:
        pass


def hangs_in_native_code():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(1000)


def swallows_the_alarm():
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1000)


def fills_memory():
    bytearray(96 << 20)


def fills_memory_and_refuses():
    bytearray(96 << 20)
    raise Rejected("too large")


def fills_memory_beside_the_allocator():
    with mmap.mmap(-1, 96 << 20) as pages:
        for at in range(0, len(pages), 4096):
            pages[at] = 1


def takes_memory_without_end():
    kept = []
    while True:
        kept.append(bytes(1 << 20))


def reads_a_null_pointer():
    faulthandler.disable()  # pytest's would print the planted crash as if it were one
    ctypes.string_at(0)


def ends_the_process():
    os._exit(0)


def says_two_lines():
    class TwoLines(Rejected):
        def __str__(self):
            return "one\ntwo"

    raise TwoLines


def says_nothing():
    raise Rejected("")


def exits():
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (leaves_a_trace, "KeyError: 'absent' at test_planted.py"),
        (spins, "slower than 0.5 s: test_planted.py"),
        (hangs_in_native_code, "hangs for more than 1.0 s"),
        (swallows_the_alarm, "hangs for more than 1.0 s"),
        (fills_memory, "more than 64 MiB; read"),
        (fills_memory_and_refuses, "more than 64 MiB; refused"),
        (fills_memory_beside_the_allocator, "more than 64 MiB; read"),
        (takes_memory_without_end, "MemoryError"),
        (reads_a_null_pointer, "the process ended: signal 11"),
        (ends_the_process, "the process ended: exit code 0"),
        (says_two_lines, "not one line"),
        (says_nothing, "not one line"),
        (exits, "SystemExit"),
    ],
)
def test_a_planted_fault_is_found_at_its_input_and_all_others_are_read(monkeypatch, tmp_path, fault, problem):
    """The fault lies at two inputs of three hundred, one of them the last; 20 inputs are refused."""
    monkeypatch.setattr(fork_server, "_GRACE_S", 0.5)
    monkeypatch.setattr(fork_server, "changed", lambda entry, seed, number: b"%d" % number)
    faulty = {123, INPUTS - 1}

    def read(folder, body):
        assert folder.is_dir()
        with (tmp_path / "read").open("ab") as file:
            file.write(b"%s\n" % body)
        if int(body) in faulty:
            fault()
        if int(body) < 20:
            raise Rejected("small")

    time_s = 0.5 if fault in {spins, hangs_in_native_code, swallows_the_alarm} else 60.0
    limits = Limits(time_s, memory_mib=64.0, address_mib=512.0)
    batches = [Batch("planted", 1, first, 100) for first in range(0, INPUTS, 100)]
    found = list(run_batches({"planted": Entry("planted", [b""], read)}, batches, limits, 2))
    seen = sorted(int(line) for line in (tmp_path / "read").read_bytes().split())
    assert seen == list(range(INPUTS))
    assert sum(one.refused for one in found) == 20
    failures = {first: (said, count) for one in found for said, (count, first) in one.failures.items()}
    assert set(failures) == faulty
    assert all(count == 1 for _, count in failures.values())
    assert all(problem in said for said, _ in failures.values()), failures
