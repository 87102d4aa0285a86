"""Help that teaches: every command, with an example, within 80 columns, without waiting for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from command_line import RUN

from glassformer.cli import app


def commands(group=None, path=()):
    """The words of every command and sub-command, the bare program first."""
    group = group or typer.main.get_command(app)
    yield path
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


ALL = list(commands())


KNOWN = {words[0] for words in ALL if words}


@pytest.mark.parametrize("words", ALL, ids=[" ".join(words) or "glassformer" for words in ALL])
def test_help_teaches_with_an_example(glassformer, words):
    result = glassformer(*words, "--help")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].startswith("Usage: " + " ".join(["glassformer", *words]))
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage")], "cut off"
    assert " ".join(["glassformer", *words]) in "\n".join(lines[1:])
    for line in lines[1:]:  # every command in an example exists, or the example teaches a mistake
        for example in line.split("glassformer ")[1:]:
            assert example.split()[0].strip(",.)") in KNOWN, line


@pytest.mark.parametrize("words", [(), ("train",), ("data",), ("data", "list")])
def test_h_is_short_for_help(glassformer, words):
    assert glassformer(*words, "-h").out == glassformer(*words, "--help").out


def test_the_commands_that_the_readme_promises_are_there():
    assert {"demo", "train", "resume", "generate", "evaluate", "recipes", "data"} <= KNOWN


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("look", "--help"),
        ("look", "attention", "--help"),
        ("--version",),
        ("train", "--help"),
        ("data", "list"),
    ],
)
def test_help_waits_for_nothing_heavy(words):
    """In a process of its own, since this one has imported everything. (typer imports pydantic to read options.)"""
    heavy = {"torch", "numpy", "tokenizers", "rich"} | ({"pydantic"} if words == ("--help",) else set())
    look = f"import atexit, sys; atexit.register(lambda: print(sorted({heavy} & sys.modules.keys())))\n"
    done = subprocess.run([sys.executable, "-c", look + RUN, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")


def test_version(glassformer):
    import glassformer as package

    assert glassformer("--version") == (0, package.__version__ + "\n", "")


def test_python_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "glassformer", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count(".") == 2
