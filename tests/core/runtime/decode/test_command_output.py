"""A program that never ends, or never ends writing, is killed."""

import sys
import time

import pytest

from powerhall.runtime.decode.command_output import command_output
from powerhall.runtime.errors import Rejected, Retryable


def python(text, **options):
    return command_output([sys.executable, "-S", "-c", text], options.pop("timeout_s", 20.0), **options)


def test_output_and_errors_arrive_whole():
    done = python("import sys; sys.stdout.write('a' * 300000); sys.stderr.write('b' * 300000); sys.exit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"a" * 300_000, "b" * 300_000)


def test_endless_output_is_refused_and_the_program_ends():
    with pytest.raises(Rejected, match="writes more than 976"):
        python("while True: print('x' * 1000)", most_bytes=1_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "import time; time.sleep(60)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "import time\nwhile True: print('.', flush=True); time.sleep(0.05)",
    ],
)
def test_a_program_that_does_not_end_is_killed_after_its_time(text):
    began_s = time.monotonic()
    with pytest.raises(Retryable, match=r"no answer within 0\.5 s"):
        python(text, timeout_s=0.5)
    assert time.monotonic() - began_s < 5.0


def test_bytes_on_stderr_that_are_no_text_are_shown_replaced():
    assert python("import os; os.write(2, b'\\xffa')").stderr == "\ufffda"


def test_an_absent_program_is_named():
    with pytest.raises(FileNotFoundError):
        command_output(["/nowhere/squeue"], 1.0)
