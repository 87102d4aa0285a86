"""Prompts and sampling settings that cannot be taken as they are."""

from __future__ import annotations

import pytest

SETTINGS = [
    (["--temperature", "-1"], "temperature=-1.0 is out of range; use 0 (most likely token) or more"),
    (["--temperature", "nan"], "temperature=nan is out of range; use 0 (most likely token) or more"),
    (["--temperature", "hot"],
     "invalid value for '--temperature': a number is needed; see: glassformer generate --help"),
    (["--top-k", "-1"], "top_k=-1 is out of range; use 0 (off) or a number of tokens"),
    (["--top-p", "0"], "top_p=0.0 is out of range; use above 0 and at most 1 (off)"),
    (["--top-p", "1.5"], "top_p=1.5 is out of range; use above 0 and at most 1 (off)"),
    (["--min-p", "2"], "min_p=2.0 is out of range; use between 0 (off) and 1"),
    (["--repetition-penalty", "0"], "repetition_penalty=0.0 is out of range; use above 0; 1 is off, 1.1 is mild"),
    (["--seed", str(2**64)], f"seed={2**64} is out of range; use a 64-bit integer"),
    (["-n", "-1"], "-n -1 must be 0 or more; to generate until Ctrl-C give --endless"),
    (["--samples", "0"], "samples=0 is too small; use 1 or more"),
    (["--samples", "-3", "--json"], "samples=-3 is too small; use 1 or more"),
    (["--alternatives", "-1"], "alternatives=-1 is too small; use 0 or more"),
    (["--window", "full"], "window='full' is unknown; use half (fast) or exact (slides by one)"),
    (["--device", "gpu"], "device='gpu' is unknown; use auto, cpu, cuda or cuda:N"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "line"), SETTINGS, ids=[" ".join(setting[0]) for setting in SETTINGS])
def test_a_setting_out_of_range(refused, finished, options, line):
    refused("generate", finished, "--prompt", "Speak", *options, code=2, line=line)


def test_an_unknown_alphabet_is_replaced_with_one_warning_that_names_it(glassformer, finished):
    result = glassformer("generate", finished, "--prompt", "Speak λόγος, Speak λόγος", "-n", "5", "--seed", "1")
    line = "5 characters not in the vocabulary became ' ': '\\u03b3', '\\u03bb', '\\u03bf', '\\u03c2', '\\u03cc'"
    assert result.err == f"warning: {line}\n"
    assert result.code == 0
    assert result.out.startswith("Speak λόγος, Speak λόγος") and len(result.out) == len("Speak λόγος, Speak λόγος") + 6
    spaces = "Speak      , Speak      "
    as_spaces = glassformer("generate", finished, "--prompt", spaces, "-n", "5", "--seed", "1")
    assert as_spaces.err == "" and as_spaces.out[-6:] == result.out[-6:]  # the model saw a space for each


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--prompt", "a", "--prompt-file", "play.txt"], "--prompt and --prompt-file were both given; use one"),
        (["--prompt-file", "no.txt"], "no.txt: the prompt cannot be read (no such file or directory)"),
        (["--prompt-file", "runs"], "runs: the prompt cannot be read (is a directory)"),
        (["--prompt-file", "latin.txt"], "latin.txt: the prompt cannot be read (it is not UTF-8 text)"),
    ],
)  # fmt: skip
def test_a_prompt_that_cannot_be_read(refused, finished, play, tmp_path, options, line):
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    line += "; give a plain text file" if "cannot" in line else ""
    refused("generate", finished, *options, code=2, line=line)


def test_bytes_on_standard_input_are_no_prompt(refused, finished):
    line = "standard input is not UTF-8 text; convert it with iconv -t UTF-8"
    refused("generate", finished, "--prompt", "-", code=2, line=line, stdin=b"d\xe9j\xe0 vu")


def test_nothing_on_standard_input_is_an_empty_prompt(glassformer, finished):
    """As with no prompt at all: the model writes from the start of a line."""
    piped = glassformer("generate", finished, "--prompt", "-", "-n", "9", "--seed", "3", stdin=b"")
    without = glassformer("generate", finished, "-n", "9", "--seed", "3")
    assert piped == without and piped.code == 0 and piped.err == "" and len(piped.out) == 10
