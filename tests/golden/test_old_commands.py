"""Every command of version 0.1 is there, and takes the options that it took."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import glassformer

__all__ = ["glassformer"]

COMMANDS = json.loads((Path(__file__).parent / "commands-0.1.json").read_text())


def options(shown: str) -> set[str]:
    """The options that a help text lists."""
    return set(re.findall(r"(?<=[\s/])--?[a-z][a-z0-9-]*(?=[\s,])", shown.split("\nOptions:")[1]))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_0_1_takes_its_options(command: str, glassformer):
    shown = glassformer(*command.split(), "--help")
    assert shown.code == 0, shown.err
    assert set(COMMANDS[command].split()) <= options(shown.out)


def test_a_missing_option_would_be_noticed(glassformer):
    assert "--seed" in options(glassformer("generate", "--help").out)
    assert "--seeds" not in options(glassformer("generate", "--help").out)
    assert glassformer("generated", "--help").code == 2
