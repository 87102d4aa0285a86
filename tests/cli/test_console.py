"""Consoles that are not UTF-8: replacements, whole tables, and JSON that loses nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import warnings

import pytest
from command_line import RUN

from glassformer.cli import console, main

ENCODINGS = ["ascii", "cp1252", "latin-1", "cp437"]


@pytest.fixture
def running(finished, tmp_path, monkeypatch):
    """Runs a command in this process, its streams in another encoding: exit code, output and errors read as that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(encoding: str, *words: str) -> tuple[int, str, str]:
        raw = io.BytesIO(), io.BytesIO()
        with monkeypatch.context() as patch:
            for name, stream in zip(("stdout", "stderr"), raw, strict=True):
                patch.setattr(sys, name, io.TextIOWrapper(stream, encoding, errors="strict"))
            patch.setattr(sys, "argv", ["glassformer", *(str(finished) if word == "RUN" else word for word in words)])
            with warnings.catch_warnings():
                code = 0
                try:
                    main()
                except SystemExit as end:
                    code = end.code or 0
                finally:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
            sys.stdout.flush(), sys.stderr.flush()
            out, err = (stream.getvalue().decode(encoding) for stream in raw)
        return code, out, err

    return run


COMMANDS = {
    "generate": ("generate", "RUN", "-p", "Speak λ → é", "-n", "9", "--seed", "1"),
    "bars": ("generate", "RUN", "-p", "Speak", "-n", "3", "--seed", "1", "--alternatives", "3"),
    "colours": ("generate", "RUN", "-p", "Speak →", "-n", "3", "--seed", "1", "--colors"),
    "look": ("look", "next", "RUN", "Speak →"),
    "runs": ("runs", "RUN"),
}

WHOLE: dict[str, str] = {}  # what each command prints where all characters are there


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *((name, encoding) for name in COMMANDS for encoding in ("ascii", "cp1252")),
        ("bars", "latin-1"),
        ("bars", "cp437"),
    ],
)
def test_there_is_no_traceback_and_every_line_is_there(name, encoding, running):
    code, out, err = running(encoding, *COMMANDS[name])
    if name not in WHOLE:
        WHOLE[name] = running("utf-8", *COMMANDS[name])[1]
    whole = WHOLE[name]
    assert code == 0 and "Traceback" not in err
    if name in ("generate", "bars", "colours"):  # one character for each; rich draws its tables with what is there
        assert list(map(len, out.splitlines())) == list(map(len, whole.splitlines()))
    if encoding == "ascii":
        assert out.isascii() and err.isascii()
    assert len(out.splitlines()) == len(whole.splitlines())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_loses_nothing(encoding, running):
    words = ("generate", "RUN", "-p", "λ → 🎉", "-n", "2", "--seed", "1", "--json")
    code, out, _ = running(encoding, *words)
    assert code == 0 and out.isascii() and json.loads(out)["prompt"] == "λ → 🎉"


def test_the_encoding_of_a_process_is_obeyed(finished, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    command = [sys.executable, "-c", RUN, "generate", str(finished), "-p", "λ → é", "-n", "3", "--alternatives", "3"]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.isascii() and done.stderr.isascii()
    assert done.stdout.startswith(b"? > ") and b"Traceback" not in done.stderr


def test_an_error_about_such_a_name_is_one_line_too(running):
    code, out, err = running("ascii", "generate", "no-such-λ")
    assert (code, out, err.count("\n")) == (1, "", 1) and "no-such-?" in err


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_drawn_stays_readable(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    console.fit_streams()
    drawn = "│ 50% █████▌ ░ … → ▁ ┼ – “x” λ 🎉"
    sys.stdout.write(drawn)
    sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert len(shown) == len(drawn)
    if encoding == "ascii":
        assert shown == '| 50% #####= . . > _ + - "x" ? ?'


def test_utf_8_is_left_alone_and_so_is_what_is_no_console(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    console.fit_streams()
    assert (stream.encoding, stream.errors) == ("utf-8", "strict")
