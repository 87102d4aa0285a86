"""What commands print: on consoles that are not UTF-8, and as JSON, which has no NaN and loses no character."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from command_line import RUN

import glassformer.cli
from glassformer.cli import main, startup
from glassformer.cli.output import print_json
from glassformer.evaluation import LossEstimate


@pytest.fixture
def running(finished, tmp_path, monkeypatch):
    """Runs a command in this process, its streams in another encoding: exit code, output and errors read as that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(encoding: str, *words: str) -> tuple[int, str, str]:
        raw = io.BytesIO(), io.BytesIO()
        code = 0
        with monkeypatch.context() as patch, warnings.catch_warnings():
            for name, stream in zip(("stdout", "stderr"), raw, strict=True):
                patch.setattr(sys, name, io.TextIOWrapper(stream, encoding, errors="strict"))
            patch.setattr(sys, "argv", ["glassformer", *(str(finished) if word == "RUN" else word for word in words)])
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
    "colors": ("generate", "RUN", "-p", "Speak →", "-n", "3", "--seed", "1", "--colors"),
    "look": ("look", "next", "RUN", "Speak →"),
    "runs": ("runs", "RUN"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_line_is_there_in_other_encodings(name, running):
    complete = running("utf-8", *COMMANDS[name])[1].splitlines()
    for encoding in ("ascii", "cp1252", "latin-1", "cp437"):
        code, out, err = running(encoding, *COMMANDS[name])
        lines = out.splitlines()
        assert code == 0 and "Traceback" not in err and len(lines) == len(complete)
        if name not in ("look", "runs"):  # one character for each; rich draws its tables with other lines
            assert list(map(len, lines)) == list(map(len, complete))
        if encoding == "ascii":
            assert out.isascii() and err.isascii()


def test_an_error_about_such_a_name_is_one_line_too(running):
    code, out, err = running("ascii", "generate", "no-such-λ")
    assert (code, out, err.count("\n")) == (1, "", 1) and "no-such-?" in err


def test_the_encoding_of_a_process_is_obeyed(finished, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    command = [sys.executable, "-c", RUN, "generate", str(finished), "-p", "λ → é", "-n", "3", "--alternatives", "3"]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.isascii() and done.stderr.isascii()
    assert done.stdout.startswith(b"? > ") and b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437"])
def test_a_missing_character_is_replaced_by_one(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    startup.fit_streams()
    drawn = "│ 50% █████▌ ░ … → ▁ ┼ – “x” λ 🎉"
    sys.stdout.write(drawn)
    sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert len(shown) == len(drawn)
    if encoding == "ascii":
        assert shown == '| 50% #####= . . > _ + - "x" ? ?'


def test_utf_8_and_streams_in_memory_stay_as_they_are(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    startup.fit_streams()
    assert (stream.encoding, stream.errors) == ("utf-8", "strict")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_loses_no_character(encoding, running):
    code, out, _ = running(encoding, "generate", "RUN", "-p", "λ → 🎉", "-n", "2", "--seed", "1", "--json")
    assert code == 0 and out.isascii() and json.loads(out)["prompt"] == "λ → 🎉"


def test_nan_is_null(capsys):
    print_json({"loss": math.nan, "text": "é", "ends": [-math.inf, 1.5]})
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert shown == {"loss": None, "text": "é", "ends": [None, 1.5]}


def test_a_broken_model_is_measured_in_json(glassformer, finished, monkeypatch):
    broken = LossEstimate(math.nan, 3, math.inf, math.nan)
    monkeypatch.setattr("glassformer.evaluation.estimate.Metrics.loss_estimate", lambda self: broken)
    shown = json.loads(glassformer("evaluate", finished, "--json").out, parse_constant=pytest.fail)
    assert (shown["loss"], shown["interval"], shown["perplexity"], shown["n"]) == (None, None, None, 3)


def test_no_command_writes_json_in_another_way():
    folder = Path(glassformer.cli.__file__).parent
    assert [file.name for file in folder.rglob("*.py") if "json.dumps" in file.read_text(encoding="utf-8")] == []
