"""The main of every program: stderr and exit code of each way to end."""

import subprocess
import sys
import types

import pytest

import powerhall
from powerhall.runtime.command_line import (
    EXIT_INTERRUPTED,
    Program,
    add_command,
    option_value,
    program_parser,
    run_program,
)
from powerhall.runtime.errors import ConfigError, Rejected, Retryable
from powerhall.runtime.extras import EXIT_INTERNAL, EXIT_OK, EXIT_REFUSED
from powerhall.units import parse_power

LONG = "Says one thing in a sentence that is much longer than a line of a terminal is wide, and goes on for a while."


def install(monkeypatch, name, *commands):
    """Make a module with an `add_parser` for these (command, run) pairs."""
    module = types.ModuleType(name)

    def add_parser(subparsers):
        for command, run in commands:
            add_command(subparsers, command, run, help=f"run {command}")

    module.add_parser = add_parser
    monkeypatch.setitem(sys.modules, name, module)


def program(**commands):
    return Program("power-test", "A program.", "examples:\n  power-test ok\n", commands)


@pytest.fixture
def run(monkeypatch):
    def main(function, *argv):
        install(monkeypatch, "planted_commands", ("act", function))
        return run_program(program(act="planted_commands"), ["act", *argv])

    return main


def raising(error):
    def act(_options):
        raise error

    return act


def test_the_exit_code_of_the_sub_command_is_returned(run):
    assert run(lambda _: EXIT_OK) == 0
    assert run(lambda _: EXIT_REFUSED) == 1


@pytest.mark.parametrize("kind", [ConfigError, Rejected, Retryable])
def test_a_refusal_is_one_line_with_the_name_of_the_program(run, capsys, kind):
    assert run(raising(kind("site.toml: no such file"))) == EXIT_REFUSED
    assert capsys.readouterr().err == "power-test: site.toml: no such file\n"


def test_an_interrupt_is_130_without_a_traceback(run, capsys):
    assert run(raising(KeyboardInterrupt())) == EXIT_INTERRUPTED == 130
    assert capsys.readouterr().err == "power-test: interrupted\n"


def test_a_fault_is_3_with_a_traceback(run, capsys):
    assert run(raising(KeyError("x"))) == EXIT_INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_a_usage_error_is_2(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run(lambda _: 0, "--no-such-option")
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_ends_early_is_no_error():
    code = """
import sys, types
from powerhall.runtime.command_line import Program, add_command, run_program
def act(_):
    for _ in range(100_000):
        sys.stdout.write("a line of text\\n")
    return 0
sys.modules["planted"] = types.ModuleType("planted")
sys.modules["planted"].add_parser = lambda commands: add_command(commands, "act", act, help="act")
sys.exit(run_program(Program("p", "d", "e", {"act": "planted"}), ["act"]))
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout.read(10)
    writer.stdout.close()
    assert writer.wait(20) == 0
    assert writer.stderr.read() == b""
    writer.stderr.close()


def test_without_a_command_help_is_printed_or_it_is_a_usage_error(capsys, monkeypatch):
    install(monkeypatch, "planted_commands", ("act", lambda _: 0))
    assert run_program(program(act="planted_commands"), []) == EXIT_OK
    assert "  power-test ok\n" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run_program(Program("p", "d", "e", {"act": "planted_commands"}, needs_command=True), [])
    assert ended.value.code == 2


def test_the_version_is_that_of_powerhall(capsys):
    with pytest.raises(SystemExit) as ended:
        run_program(program(), ["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"power-test {powerhall.__version__}\n"


def test_only_the_module_of_the_given_command_is_imported(monkeypatch):
    install(monkeypatch, "planted_light", ("light", lambda _: 7), ("other", lambda _: 8))
    both = program(heavy="no_such_module", light="planted_light", other="planted_light")
    assert run_program(both, ["light"]) == 7
    assert run_program(both, ["other"]) == 8
    with pytest.raises(ModuleNotFoundError):
        program_parser(both)


def test_one_line_descriptions_are_wrapped_and_others_stay_as_written(monkeypatch, capsys):
    module = types.ModuleType("planted_commands")

    def add_parser(commands):
        add_command(commands, "long", lambda _: 0, help="say it", description=LONG)
        add_command(commands, "written", lambda _: 0, help="say it", description="one\n  two\n", epilog="x:\n  y")
        add_command(commands, "bare", lambda _: 0, help="say it")

    module.add_parser = add_parser
    monkeypatch.setitem(sys.modules, "planted_commands", module)
    texts = {}
    for name in ("long", "written", "bare"):
        with pytest.raises(SystemExit):
            program_parser(program(all="planted_commands")).parse_args([name, "--help"])
        texts[name] = capsys.readouterr().out
    assert max(len(line) for line in texts["long"].splitlines()) <= 100
    assert "one\n  two\n" in texts["written"]
    assert "x:\n  y" in texts["written"]
    assert "Say it." in texts["bare"]


def test_an_option_that_cannot_be_parsed_is_refused_by_name():
    assert option_value("--to", "350 MW", parse_power) == 350e6
    with pytest.raises(Rejected, match="--to: 'much'"):
        option_value("--to", "much", parse_power)


@pytest.mark.parametrize("value", ["-3s", "-3 s", "-0.5kW", "-.5", "-3"])
def test_a_negative_value_reaches_the_reader_of_its_option(monkeypatch, value):
    module = types.ModuleType("planted_span")

    def add_parser(subparsers):
        add_command(subparsers, "act", lambda options: seen.append(options.span) or 0, help="act").add_argument(
            "--for", dest="span"
        )

    seen = []
    module.add_parser = add_parser
    monkeypatch.setitem(sys.modules, "planted_span", module)
    assert run_program(program(act="planted_span"), ["act", "--for", value]) == 0
    assert seen == [value]
