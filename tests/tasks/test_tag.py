"""Tag: words of several tokens, a run from examples to `glassformer tag`, and the same folder in transformers."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from toys import shaken
from typer.testing import CliRunner

import glassformer as gf
from glassformer import recipes
from glassformer.cli import app
from glassformer.data.examples import Example
from glassformer.errors import DataError, UsageError
from glassformer.generation import tag, words_of
from glassformer.generation.tagging import encode_words
from glassformer.models import Encoder, EncoderConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import Tag
from glassformer.tasks.sources import ExampleSource
from glassformer.tasks.tag import tag_baseline

TINY = [
    "model.n_layer=1", "model.n_head=2", "model.n_embd=24", "model.block_size=32", "tokenizer.kind=words",
    "tokenizer.vocab_size=100", "training.steps=80", "training.batch_size=16", "training.warmup_steps=4",
    "training.dropout=0", "training.optimizer=adamw", "training.learning_rate=0.01", "training.eval_every=40",
    "training.sample_every=40", "training.checkpoint_every=0", "training.precision=fp32",
]  # fmt: skip
BERT = ["model.family=original", "model.positions=learned", "model.activation=gelu", "model.embedding_norm=true",
        "model.embedding_scale=1.0"]  # fmt: skip
TAGS = {"ing": "VERB", "ness": "NOUN", "ly": "ADV"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The recipe, small, on words whose endings decide their tags."""
    draw, home = random.Random(0), tmp_path_factory.mktemp("tagged")
    rows = []
    for _ in range(300):
        ends = draw.choices(list(TAGS), k=draw.randint(1, 4))
        stems = ["".join(draw.choices("bcdf", k=2)) for _ in ends]
        words = [stem + end for stem, end in zip(stems, ends, strict=True)]
        rows.append({"source": " ".join([*words, "."]), "target": " ".join([*map(TAGS.get, ends), "PUNCT"])})
    (home / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recipes.train("pos-tags", [*TINY, *BERT], data=str(home / "tags.jsonl"), out=home / "run")


def command(*words: object, stdin: str = "") -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('Ankara\'da "kar" var.', ["Ankara'da", '"', "kar", '"', "var", "."]),
        ("(a, b) 3,5 x...", ["(", "a", ",", "b", ")", "3,5", "x", "..."]),
        ("  stop!? ", ["stop", "!", "?"]),
        ("...", ["..."]),
        ("", []),
    ],
)
def test_punctuation_is_taken_off_the_edges_of_words(text, words):
    assert words_of(text) == words


def test_a_word_of_several_tokens_is_tagged_at_its_first():
    rows = [Example("running quickly .", "VERB ADV PUNCT"), Example("slowly", "ADV"), Example("a kindness", "DET NOUN")]
    tokenizer = build_tokenizer("bpe", [e.source for e in rows], vocab_size=262)
    labels = ("ADV", "DET", "NOUN", "PUNCT", "VERB")
    task = Tag(n_classes=len(labels))
    task.source = ExampleSource(
        name="rows", examples={"train": rows, "validation": rows}, tokenizer=tokenizer, labels=labels
    )
    for (ids, numbers), example in zip(task.encoded("train", 32), rows, strict=True):
        assert list(ids) == tokenizer.encode(example.source) and len(ids) > len(example.source.split())
        starts = np.flatnonzero(numbers != -100)
        assert [labels[i] for i in numbers[starts]] == example.target.split()
        pieces = [tokenizer.decode(part) for part in np.split(np.asarray(ids), starts[1:])]
        assert [piece.strip() for piece in pieces] == example.source.split()
    assert all(len(ids) == len(numbers) == 3 for ids, numbers in task.encoded("train", 3))
    assert any("cut to 3 tokens" in line for line in task.warnings())


def test_from_examples_to_tags(run):
    assert run.command == "tag" and run.loss.accuracy > 0.95
    text = 'bding, "cfness" ddly.'
    expected = ["VERB", "NOUN", "ADV", "PUNCT"]
    words = "bding cfness ddly ."
    assert command("tag", run.path, words) == " ".join(map("/".join, zip(words.split(), expected, strict=True))) + "\n"
    (row,) = json.loads(command("tag", run.path, "--json", stdin=text + "\n\n"))
    assert row["text"] == text and [word["word"] for word in row["words"]] == words_of(text)
    assert all(1 / 4 < word["probability"] <= 1 for word in row["words"])
    assert command("tag", run.path, "--words", "cfness.").startswith("cfness./")
    told = command("evaluate", run.path, "--split", "test")
    assert "accuracy " in told and "+- " in told and "baseline " in told and "new words" in told
    sample = json.loads((run.path / "samples.jsonl").read_text().splitlines()[-1])["text"]
    assert sample.startswith("text:") and "\nmodel:" in sample and "\ntarget:" in sample


def test_the_baseline_by_hand():
    train = [Example("the dog runs", "DET NOUN VERB"), Example("the runs", "DET NOUN"), Example("runs", "NOUN")]
    test = [Example("the cat runs", "DET NOUN VERB"), Example("a", "DET")]
    baseline = tag_baseline(train, test)  # the: DET, cat: new, NOUN; runs: NOUN, wrong; a: new, NOUN, wrong
    assert baseline.accuracy.value == 0.5 and baseline.accuracy.n == 4 and baseline.new_words.value == 0.5
    assert baseline.to_dict()["baseline"]["share"] == 0.5 and "50.00 %" in baseline.lines()[0]


def test_transformers_reads_the_folder_and_gives_the_same_logits(run):
    transformers = pytest.importorskip("transformers")
    ours, tokenizer = gf.load(run.path)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(run.path / "model").eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(run.path / "model")
    assert type(theirs).__name__ == "BertForTokenClassification"
    assert [*theirs.config.id2label.values()] == [*gf.load(run.path).labels] == ["ADV", "NOUN", "PUNCT", "VERB"]
    words = ["bding", "cfness", "."]
    ((ids, firsts),) = encode_words(tokenizer, [words])
    assert their_tokenizer(" ".join(words), add_special_tokens=False)["input_ids"] == ids
    batch = torch.tensor([ids])
    with torch.no_grad():
        logits = theirs(batch).logits
        torch.testing.assert_close(ours.token_logits(ours(batch)), logits, rtol=0, atol=1e-5)
    (p_TV,) = tag(ours, tokenizer, [words])
    torch.testing.assert_close(p_TV, logits[0, firsts].softmax(dim=-1), rtol=0, atol=1e-5)


def test_many_texts_are_tagged_as_each_alone_and_between_the_tokens_of_bert():
    texts = ["a b", "c", "a c b a", "b"]
    for specials in ((), ("[CLS]", "[SEP]")):
        tokenizer = build_tokenizer("words", texts, vocab_size=30, specials=["<pad>", "<unk>", *specials])
        fields = {"n_layer": 1, "n_head": 2, "n_embd": 12, "block_size": 7, "n_classes": 3, "token_head": "classes"}
        model = shaken(Encoder(EncoderConfig.make(vocab_size=tokenizer.vocab_size, **fields))).eval()
        together = tag(model, tokenizer, texts, batch_size=3)
        for text, p_TV in zip(texts, together, strict=True):
            assert p_TV.shape == (len(text.split()), 3)
            torch.testing.assert_close(p_TV, tag(model, tokenizer, [text])[0])
        around = [tokenizer.special_tokens[name] for name in specials]
        ids = torch.tensor([[*around[:1], *tokenizer.encode(texts[2]), *around[1:]]])
        with torch.no_grad():
            direct_TV = model.token_logits(model(ids))[0].softmax(dim=-1)
        torch.testing.assert_close(together[2], direct_TV[1:-1] if specials else direct_TV)
        with pytest.raises(UsageError, match="text 2 is empty"):
            tag(model, tokenizer, ["a", " "])
        with pytest.raises(UsageError, match=r"reads [57] at most"):
            tag(model, tokenizer, ["a b c a b c a b c"])


def test_mistakes_are_one_line(run, tmp_path):
    result = CliRunner().invoke(app, ["classify", str(run.path), "a"])
    assert isinstance(result.exception, UsageError) and f"glassformer tag {run.path}" in str(result.exception)
    (tmp_path / "more.jsonl").write_text('{"source": "a b", "target": "NOUN", "split": "test"}\n')
    with pytest.raises(DataError, match="2 words and 1 tag"):
        recipes.evaluate(run.path, data=str(tmp_path / "more.jsonl"), split="test")
