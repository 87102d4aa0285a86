"""`glassformer data ...`: what a person types, and that help does not wait for anything heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from glassformer.cli.data import app
from glassformer.data import CORPORA, EXAMPLE_SETS
from glassformer.errors import UsageError


def run(*arguments: str, **options) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, **options)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_size_license_and_origin():
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert {*CORPORA, *EXAMPLE_SETS} <= rows.keys()
    shown = run("list")
    for row in rows.values():
        assert row["name"] in shown and row["license"] in shown and row["origin"] in shown


def test_prepare_then_show_the_text_and_the_store(tmp_path):
    (tmp_path / "my.txt").write_text("to be or not to be\n" * 40)
    options = ["--tokenizer", "bpe", "--vocab-size", "280", "--out", str(tmp_path / "s"), "--json"]
    made = json.loads(run("prepare", str(tmp_path / "my.txt"), *options))
    assert made["tokenizer"]["kind"] == "bpe" and made["tokenizer"]["vocab_size"] <= 280
    shown = run("show", str(tmp_path / "s"), "--verify")
    for part in ("validation", "to be or not to be", f"{made['splits']['train']['tokens']:,} tokens"):
        assert part in shown
    text = run("show", str(tmp_path / "my.txt"))
    assert "760" in text and "lines: 0.1" in text and text.rstrip().endswith("to be or not to be")
    assert json.loads(run("show", str(tmp_path / "my.txt"), "--json"))["bytes"] == 760


def test_prepare_prints_no_empty_lines_into_a_pipe(tmp_path):
    """The `tokenizers` library shows its progress from Rust, past `sys.stdout`: only a process of its own sees it."""
    (tmp_path / "my.txt").write_text("to be or not to be\n" * 40)
    command = [sys.executable, "-m", "glassformer", "data", "prepare", str(tmp_path / "my.txt")]
    done = subprocess.run([*command, "--tokenizer", "bpe", "--vocab-size", "280"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("store ") and all(line.strip() for line in done.stdout.splitlines())


def test_prepare_reads_standard_input():
    made = json.loads(run("prepare", "-", "--json", input="piped text\n" * 30))
    assert sum(split["bytes"] for split in made["splits"].values()) == 330


def test_get_prints_where_the_file_is_and_knows_near_names():
    with pytest.raises(UsageError, match="no corpus is called 'shakespear'; did you mean shakespeare"):
        run("get", "shakespear")


def test_show_counts_a_file_of_pairs_and_shows_some(tmp_path):
    (tmp_path / "my.tsv").write_text("".join(f"the {i}\tle {i}\n" for i in range(40)))
    result = run("show", str(tmp_path / "my.tsv"))
    assert "36 examples, 36 different sources" in result and "unknown" in result
    shown = json.loads(run("show", str(tmp_path / "my.tsv"), "--json"))
    assert shown["examples"] == {"train": 36, "validation": 2, "test": 2}
    for example in shown["first_validation_examples"]:
        assert f"{example['source']}\n    -> {example['target']}" in result


@pytest.mark.parametrize("command", ["list", "get", "prepare", "show"])
def test_help_teaches_with_an_example(command):
    assert f"glassformer data {command}" in run(command, "--help")


def test_help_imports_nothing_heavy():
    code = (
        "import sys, glassformer.cli.data, glassformer.fetch\n"
        "print([m for m in ('torch', 'numpy', 'rich.progress', 'tokenizers', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
