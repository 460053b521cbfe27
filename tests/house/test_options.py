"""Options of all commands alike: one name and one form, one exit code for refusals, `--json` beside text."""

import argparse
import importlib
import re
from collections.abc import Iterator

import pytest

from powerhall.runtime.command_line import Program, run_program
from powerhall.units import parse_share, parse_span

PROGRAMS = ("agent", "optimizer", "dashboards", "twin")
WITHOUT_JSON = {
    "agent run": "a service: its log is key=value",
    "agent gateway": "a service: its log is key=value; --once --format json",
    "agent cap": "a service",
    "agent lease": "a service",
    "agent top": "a screen",
    "dashboards serve": "a service: /overview.json",
    **dict.fromkeys((f"{name} completion" for name in PROGRAMS), "prints a script for a shell"),
    "optimizer rollup": "a service: its log is key=value",
    "optimizer node-key": "prints a key, for a file",
    "agent once": "--format json, since other formats stand beside it",
}
"""Commands without `--json`, and why."""
SPANS = {"for_s", "interval", "within", "poll", "length"}
"""Destinations of options that hold a duration in s."""


def programs() -> dict[str, Program]:
    return {name: importlib.import_module(f"powerhall_{name}.cli").PROGRAM for name in PROGRAMS}


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for name in PROGRAMS:
        parser = importlib.import_module(f"powerhall_{name}.cli").parser()
        (subs,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        yield from ((f"{name} {command}", sub) for command, sub in subs.choices.items())


ALL = dict(commands())


@pytest.mark.parametrize("name", ALL)
def test_durations_and_shares_are_written_the_same_way(name: str) -> None:
    for action in ALL[name]._actions:
        if action.metavar in ("SPAN", "SHARE") or (action.dest in SPANS and action.option_strings):
            if action.type is None:  # read by option_value, which the command's own tests cover
                continue
            assert action.type("30%" if action.metavar == "SHARE" else "90 s") in (0.3, 90.0), action.option_strings


@pytest.mark.parametrize("name", ALL)
def test_options_of_one_name_are_documented_and_old_names_hidden(name: str) -> None:
    for action in ALL[name]._actions:
        names = set(action.option_strings)
        if names & {"--hours", "--minutes"}:
            assert action.help == argparse.SUPPRESS, "the old name of --length"
            assert action.dest == "length"
        else:
            assert action.help, action.option_strings


@pytest.mark.parametrize(
    ("text", "bare", "seconds"),
    [("90", "s", 90.0), ("90 s", "h", 90.0), ("1.5h", "s", 5400.0), ("PT2H", "s", 7200.0), ("24", "h", 86_400.0)],
)
def test_a_span_takes_a_unit_or_the_one_that_the_option_had(text: str, bare: str, seconds: float) -> None:
    assert parse_span(text, bare) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "-5", "nan", "inf", "1e400", "3 months", "１２", "1_0", "٣ h", "1h30", "PT"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_span(text)


@pytest.mark.parametrize(("text", "share"), [("30%", 0.3), ("30 %", 0.3), ("30", 0.3), ("0.5%", 0.005), ("0", 0.0)])
def test_a_share_is_in_percent(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0.3", "130%", "-1", "half", "nan", "３０%", "1_0", "30 % %", "inf%", ""])
def test_what_may_mean_two_shares_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="30%"):
        parse_share(text)


@pytest.mark.parametrize(
    ("program", "arguments", "line"),
    [
        ("optimizer", ["round", "--site", "s", "--seconds", "soon"], r"--seconds: 'soon': must be a number and a unit"),
        ("optimizer", ["queue", "--scheduler", "pbs"], r"--scheduler: 'pbs': must be one of file, kubernetes, slurm"),
        ("twin", ["demo", "--seed", "x"], r"--seed: 'x': must be a whole number"),
        ("twin", ["shed", "--by", "0.3"], r"--by: '0.3': must be a share from 0 to 100"),
        ("dashboards", ["build", "--retention", "all"], r"--retention: 'all': must be one of one, classes"),
        (
            "dashboards",
            ["preview", "--store", "sqlite:///x", "--length", "6x"],
            r"--length: '6x': must be a number and",
        ),
        ("agent", ["run", "--for", "later"], r"--for: 'later': must be a number and a unit"),
    ],
)
def test_a_refused_value_is_one_line_and_exit_code_1_on_every_command(
    program: str, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_program(programs()[program], arguments) == 1
    error = capsys.readouterr().err
    assert re.match(rf"powerhall-{program}: command line: {line}", error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["round"], ["round", "--sites", "x"], ["plan"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_program(programs()["optimizer"], arguments)
    assert end.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize("command", ["verify", "report"])
@pytest.mark.parametrize("arguments", [["p.json"], ["--plan", "p.json"], ["p.json", "--json"], ["--json", "p.json"]])
def test_a_plan_is_given_by_its_place_or_by_the_option_of_other_commands(command: str, arguments: list[str]) -> None:
    assert str(ALL[f"optimizer {command}"].parse_args(arguments).plan) == "p.json"
    assert str(ALL[f"optimizer {command}"].parse_args([]).plan) == "plan.json"


def test_commands_that_print_a_result_print_it_as_json_too() -> None:
    without = {name for name, parser in ALL.items() if "--json" not in parser._option_string_actions}
    assert without == set(WITHOUT_JSON) & without, sorted(without - set(WITHOUT_JSON))
