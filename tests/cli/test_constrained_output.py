"""`--json-schema` and `--grammar`: what `generate` and `chat` write follows them."""

from __future__ import annotations

import json

import pytest
from toys import toy_model

pytest.importorskip("llguidance", reason="needs the extra grammar")

from glassformer.hub import save
from glassformer.processors.tokenizers import build_tokenizer

SCHEMA = {"type": "array", "items": {"enum": ["Ulm", "Köln"]}, "minItems": 1, "maxItems": 2}


@pytest.fixture
def model(glassformer, tmp_path):
    tokenizer = build_tokenizer("bytes", [])
    save(tmp_path / "toy", toy_model("modern", vocab_size=tokenizer.vocab_size, block_size=64), tokenizer)
    (tmp_path / "cities.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    (tmp_path / "word.lark").write_text('start: "yes" | "no"', encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("more", [[], ["--samples", "3"], ["--json"], ["--json-tokens"]])
def test_generate_writes_json_of_a_schema(glassformer, model, more):
    result = glassformer("generate", model / "toy", "-p", "A", "--json-schema", model / "cities.json", *more)
    assert result.code == 0, result.err
    if "--json" in more:
        texts = [json.loads(result.out)["text"]]
        assert json.loads(result.out)["settings"]["json_schema"] == str(model / "cities.json")
    elif "--json-tokens" in more:
        texts = ["".join(json.loads(line)["text"] for line in result.out.splitlines())]
    else:  # of several samples each has a line of its own above it
        texts = [
            part.partition("\n" if more else "A")[2].removeprefix("A") for part in result.out.split("--- ") if part
        ]
    for text in texts:
        cities = json.loads(text)
        assert 1 <= len(cities) <= 2 and set(cities) <= {"Ulm", "Köln"}


def test_bars_mark_what_the_grammar_does_not_allow(glassformer, model):
    words = ["-p", "A", "--grammar", model / "word.lark", "--alternatives", "3", "--seed", "1"]
    lines = glassformer("generate", model / "toy", *words).out.splitlines()[2:]
    assert "".join(line[0] for line in lines) in ("yes", "no")
    assert all(line.count("✗") >= 1 for line in lines)


def test_a_chat_answers_with_it(glassformer, model):
    words = ["chat", model / "toy", "--grammar", model / "word.lark"]
    result = glassformer(*words, stdin=b"Well?\n/why\n/exit\n")
    assert result.code == 0, result.err
    assert any(line.endswith(("yes", "no")) for line in result.out.splitlines())
    assert "what the grammar allows" in result.out and "✗" in result.out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--json-schema", "no.json"], "no such file"),
        (["--json-schema", "word.lark"], "word.lark"),
        (["--grammar", "cities.json"], "cities.json"),
        (["--json-schema", "cities.json", "--grammar", "word.lark"], "one of them"),
        (["--json-schema", "cities.json", "--endless"], "endless"),
    ],
)
def test_mistakes_are_one_line(refused, model, words, named):
    refused("generate", "toy", "-p", "A", *words, code=2, names=[named])
