"""`glassformer generate`: what it prints, the sources of the prompt, and that the same seed gives the same text."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from command_line import RUN, own_process

from glassformer.cli.generate import _bar_line
from glassformer.generation import Alternative, Piece


def test_only_the_same_seed_gives_the_same_text(glassformer, finished):
    """Two equal texts of 60 characters by chance: less than once in 10^18, as no character has more than 1/2."""
    command = ["generate", finished, "--prompt", "Speak", "-n", "60", "--temperature", "1"]
    first, again, other = (glassformer(*command, "--seed", seed) for seed in (5, 5, 6))
    assert first == again and (first.code, first.err) == (0, "")
    assert first.out.startswith("Speak") and first.out.endswith("\n") and len(first.out) == 5 + 60 + 1
    assert len({first.out, other.out, glassformer(*command).out, glassformer(*command).out}) == 4


def test_at_temperature_0_the_most_likely_token_is_taken(glassformer, finished):
    best = ["--temperature", "0", "--alternatives", "1", "--json"]
    result = glassformer("generate", finished, "-p", "Speak", "-n", "12", *best)
    for piece in json.loads(result.out)["pieces"]:
        assert piece["token"] == piece["alternatives"][0]["token"]


@pytest.mark.parametrize("more", [[], ["--stop", "e", "--stop", "k"], ["--top-k", "3"], ["--window", "exact"]])
def test_all_at_once_is_the_same_text_as_streamed(glassformer, finished, more):
    command = ["generate", finished, "--prompt", "First", "-n", "50", "--seed", "2", *more]
    streamed, at_once = glassformer(*command), glassformer(*command, "--no-stream")
    assert streamed == at_once and streamed.code == 0
    written = json.loads(glassformer(*command, "--json").out)["text"]
    assert streamed.out == f"First{written}\n"


def test_a_stop_text_ends_it_and_is_not_shown(glassformer, finished):
    command = ["generate", finished, "-p", "Speak", "-n", "200", "--seed", "3"]
    whole = glassformer(*command).out
    stop = whole[60:62]
    stopped = glassformer(*command, "--stop", stop).out
    assert stopped == whole[: whole.index(stop, 5)] + "\n"


def test_samples_are_what_their_seeds_give_alone(glassformer, finished):
    result = glassformer("generate", finished, "-p", "All", "-n", "15", "--samples", "3", "--seed", "10")
    blocks = result.out.split("\n\n--- ")
    alone = [glassformer("generate", finished, "-p", "All", "-n", "15", "--seed", str(10 + i)).out for i in range(3)]
    assert blocks[0].startswith("--- sample 1 of 3 (seed 10)\n")
    for i, block in enumerate(blocks):
        header, text = block.split("\n", 1)
        assert header.removeprefix("--- ") == f"sample {i + 1} of 3 (seed {10 + i})"
        assert text.rstrip("\n") == alone[i].rstrip("\n")


@pytest.mark.parametrize("columns", [80, 100, 131])
def test_alternatives_are_bars_that_fit(glassformer, finished, monkeypatch, columns):
    command = ["generate", finished, "-p", "Speak", "-n", "9", "--seed", "4", "--alternatives", "5"]
    monkeypatch.setenv("COLUMNS", str(columns))
    result = glassformer(*command)
    prompt, header, *lines = result.out.splitlines()
    assert (prompt, len(lines), result.code) == ("Speak", 9, 0) and header.startswith("taken")
    assert max(map(len, result.out.splitlines())) <= columns
    pieces = json.loads(glassformer(*command, "--json").out)["pieces"]
    for line, piece in zip(lines, pieces, strict=True):
        taken, _, likely = line.partition("│")
        assert taken.split() == [piece["token_text"].replace(" ", "␣"), f"{piece['probability']:.1%}"]
        shown = [other["text"].replace(" ", "␣") for other in piece["alternatives"]]
        assert [word for word in likely.split() if "%" not in word and word[0] not in "█▏▎▍▌▋▊▉"] == shown
        assert [f"{other['probability']:.0%}" for other in piece["alternatives"]] == [
            word for word in likely.split() if word.endswith("%") and len(word) > 1
        ]


@pytest.mark.parametrize(("columns", "number"), [(80, 5), (80, 3), (120, 8)])
@pytest.mark.parametrize("p", [1.0, 0.5, 0.0])
def test_bars_of_long_tokens_fit_too(columns, number, p):
    likely = [Alternative(i, " unquestionably", p) for i in range(number)]
    line = _bar_line(Piece(" unquestionably", 0, " unquestionably", p, p, likely), columns).plain
    assert len(line) <= columns and line.count("␣un") == number + 1


def test_standard_output_has_only_json(glassformer, finished):
    shown = ["--samples", "2", "--alternatives", "3", "--seed", "1", "--json"]
    result = glassformer("generate", finished, "-p", "Speak λ", "-n", "6", *shown)
    samples = [json.loads(line) for line in result.out.splitlines()]  # one line a text
    found = [(sample["prompt"], sample["sample"], sample["settings"]["seed"]) for sample in samples]
    assert found == [("Speak λ", 0, 1), ("Speak λ", 1, 2)]
    for sample in samples:
        assert sample["finish_reason"] == "length" and len(sample["pieces"]) == 6
        assert "".join(piece["text"] for piece in sample["pieces"]) == sample["text"]
        assert all(len(piece["alternatives"]) == 3 and 0 < piece["probability"] <= 1 for piece in sample["pieces"])
    assert result.err.startswith("warning: 1 character ") and "not in the vocabulary" in result.err


def test_the_prompt_may_come_from_a_file_or_from_standard_input(glassformer, finished, tmp_path):
    text = "First Citizen:\nSpeak,"
    (tmp_path / "prompt.txt").write_text(text)
    command = ["generate", finished, "-n", "8", "--seed", "7"]
    typed = glassformer(*command, "--prompt", text)
    assert typed.out.startswith(text)
    assert glassformer(*command, "--prompt-file", "prompt.txt") == typed
    assert glassformer(*command, "--prompt", "-", stdin=text.encode()) == typed


def test_a_checkpoint_and_a_model_folder_can_write_too(glassformer, finished):
    command = ["-p", "Speak", "-n", "20", "--seed", "1"]
    run = glassformer("generate", finished, *command)
    assert glassformer("generate", finished / "model", *command) == run
    older = glassformer("generate", finished / "checkpoints" / "step-000008", *command)
    assert older.code == 0 and older.out != run.out


@pytest.mark.parametrize("words", [["data", "list", "--json"], ["generate", "RUN", "-n", "1"]])
def test_a_reader_that_ended_before_the_first_word(finished, tmp_path, words):
    reading, writing = os.pipe()
    os.close(reading)
    words = [str(finished) if word == "RUN" else word for word in words]
    done = subprocess.run([sys.executable, "-c", RUN, *words], stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_defaults_of_the_folder_are_shown_and_flags_override_them(glassformer, finished):
    folder = finished / "model"
    given = {"do_sample": True, "temperature": 0.6, "top_k": 3, "max_new_tokens": 7, "transformers_version": "5.1.0"}
    (folder / "generation_config.json").write_text(json.dumps({**given, "glassformer": {"filled_in": []}}))
    command = ["generate", folder, "-p", "Speak", "--seed", "3"]
    plain = glassformer(*command)
    assert len(plain.out) == 5 + 7 + 1
    for shown in ("temperature 0.6", "top_k 3", "max_new_tokens 7"):
        assert shown in plain.err
    same = ["--temperature", "0.6", "--top-k", "3", "-n", "7"]
    assert glassformer(*command, *same) == (0, plain.out, "")  # nothing left to be shown
    assert glassformer(*command, "-n", "9").out.startswith(plain.out[:-1])
    hot = glassformer(*command, "--temperature", "9", "--top-k", "0")
    assert hot.out != plain.out and "temperature" not in hot.err and "max_new_tokens 7" in hot.err


def test_json_tokens_is_a_line_for_each_token(glassformer, finished):
    command = ["generate", finished, "-p", "Speak", "-n", "7", "--seed", "1", "--samples", "2"]
    lines = [json.loads(line) for line in glassformer(*command, "--json-tokens").out.splitlines()]
    assert [line["sample"] for line in lines] == [0, 1] * 7
    whole = [json.loads(line)["text"] for line in glassformer(*command, "--json").out.splitlines()]
    assert ["".join(line["text"] for line in lines if line["sample"] == i) for i in (0, 1)] == whole


def test_an_endless_text_continues_until_its_reader_ends(finished, tmp_path):
    """Beyond what the model reads, several times over; into `head`, which closes the pipe: no traceback, and exit 1."""
    command = shlex.join([sys.executable, "-c", RUN, "generate", str(finished), "-p", "Speak", "--endless"])
    done = subprocess.run(f"{command} | head -c 700; echo \" ${{PIPESTATUS[0]}}\"", shell=True, executable="/bin/bash",
                          capture_output=True, text=True, cwd=tmp_path, timeout=120)  # fmt: skip
    assert done.stderr == "" and done.stdout.startswith("Speak") and done.stdout[700:] == " 1\n"


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a signal here")
def test_ctrl_c_ends_an_endless_text(finished, tmp_path):
    running = own_process("generate", finished, "-p", "Speak", "--endless", cwd=tmp_path)
    try:
        assert running.stdout.read(100).startswith("Speak")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, err) == (0, "") and out.endswith("\n")


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (["--endless", "-n", "5"], ("-n 5", "--endless")),
        (["--endless", "--samples", "2"], ("--samples 2", "--endless")),
        (["--endless", "--json"], ("--endless", "--json-tokens")),
        (["-n", "-1"], ("-n -1", "--endless")),
    ],
)
def test_lengths_that_contradict_each_other(refused, finished, more, names):
    refused("generate", finished, *more, code=2, names=names)


def test_no_tokens(glassformer, finished):
    none = glassformer("generate", finished, "-p", "Speak", "-n", "0")
    assert (none.code, none.out) == (0, "Speak\n") and "--endless" in none.err
