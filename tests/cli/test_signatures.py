"""Each command is the public function of the same name: same parameters, same defaults."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from typer.main import get_command

import handful.commands
from handful.cli.app import app

PYTHON_ONLY = {"labels", "progress"}  # items that are in memory, and a callback
CLI_ONLY = {"json", "quiet", "debug", "help", "table"}  # how the result is shown
MODULES = {"list": "listing"}  # others have the command's name
FUNCTIONS = {"list": "list_", "next": "next_"}


def function(command: str) -> Callable[..., Any]:
    """The public function of a command."""
    name = command.replace(" ", "_")
    module = importlib.import_module(f"handful.commands.{MODULES.get(command, command.split()[0])}")
    return getattr(module, FUNCTIONS.get(command, name))


def parsers(group: Any, before: str = "") -> dict[str, Any]:
    """Every command by what is typed, those of groups too."""
    found = {}
    for name, command in group.commands.items():
        inside = hasattr(command, "commands")
        found |= parsers(command, f"{before}{name} ") if inside else {before + name: command}
    return found


PARSERS = parsers(get_command(app))
COMMANDS = {name: function(name) for name in PARSERS}


def options(command: str) -> dict[str, Any]:
    return {p.name: p for p in PARSERS[command].params if p.name not in CLI_ONLY}


def test_every_public_command_is_there() -> None:
    assert set(COMMANDS) == set(handful.commands.COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_the_parameters(command: str) -> None:
    wanted = [name for name in inspect.signature(COMMANDS[command]).parameters if name not in PYTHON_ONLY]
    assert list(options(command)) == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_the_same(command: str) -> None:
    parameters = inspect.signature(COMMANDS[command]).parameters
    for name, option in options(command).items():
        default = parameters[name].default
        if default is inspect.Parameter.empty:
            assert option.required, name
        elif isinstance(default, tuple):
            assert list(option.default) == [str(value) for value in default], name
        else:
            assert not option.required, name
            assert option.default == default or option.default == str(default), name


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_are_the_names_with_dashes(command: str) -> None:
    other_names = {"heads": "head", "encoders": "encoder"}  # one --head each
    for name, option in options(command).items():
        if option.param_type_name == "option":
            assert "--" + other_names.get(name, name).rstrip("_").replace("_", "-") in option.opts, name


@pytest.mark.parametrize("command", COMMANDS)
def test_everything_is_explained(command: str) -> None:
    assert PARSERS[command].help
    for parameter in PARSERS[command].params:
        assert parameter.help, parameter.name
