"""Runs on examples: every task from a file of one's own to a model that answers, and exactly resumed."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from resolving import stopped_at
from typer.testing import CliRunner

from glassformer import recipes
from glassformer.cli import app
from glassformer.errors import DataError, DivergenceError, RunError, UsageError
from glassformer.hub import (
    load,
    load_labels,
    load_model,
    load_source_tokenizer,
    load_weights,
    save_weights,
)
from glassformer.recipes import read_recipe, shape
from glassformer.recipes.opening import open_run
from glassformer.tasks import TASKS
from glassformer.training import RunFolder

WORDS = ["red", "blue", "green", "cat", "dog", "bird", "runs", "sleeps", "sings", "fast", "well", "loud"]
SMALL = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=24"]
STEPS = ["training.steps=6", "training.batch_size=5", "training.eval_every=3", "training.sample_every=6"]


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sentences(n: int = 90) -> list[str]:
    draw = random.Random(0)
    return [f"{' '.join(draw.sample(WORDS, 5))} {i}" for i in range(n)]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """Each sentence and the same backwards."""
    rows = [{"source": text, "target": " ".join(text.split()[::-1])} for text in sentences()]
    return write(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    rows = [{"text": text, "label": "animal" if "cat" in text or "dog" in text else "other"} for text in sentences()]
    return write(tmp_path / "labelled.jsonl", rows)


def run(tmp_path: Path, kind: str, data: str, *more: str, name: str = "run") -> Path:
    """A small run; of two words for one setting the later holds."""
    recurrent = any(word.startswith("model.kind=seq2seq") for word in more)
    size = [] if any("start_from" in word for word in more) else ["tokenizer.vocab_size=400"]
    words = [f"task.kind={kind}", *SMALL, *STEPS, *size, *more]
    settings = dict(word.split("=", 1) for word in words)
    if recurrent:
        del settings["model.n_head"]  # it has none
    done = recipes.train(None, [f"{key}={value}" for key, value in settings.items()], data=data, out=tmp_path / name)
    assert done is not None
    return done.path


CASES: dict[str, tuple[str, list[str]]] = {
    "translation": ("translate", ["model.family=original", "training.schedule=noam"]),
    "recurrent": ("translate", ["model.kind=seq2seq-attention"]),
    "masked": ("masked_tokens", ["model.family=modern"]),
    "spans": ("spans", ["model.family=modern", "model.positions=relative"]),
    "classes": ("classify", ["model.pooling=mean"]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_task_from_a_file_to_a_model(name: str, tmp_path: Path, pairs: str, labelled: str):
    kind, more = CASES[name]
    path = run(tmp_path, kind, labelled if kind == "classify" else pairs, *more)
    shown = json.loads((path / "summary.json").read_text())
    assert 0 <= shown["val_accuracy"] <= 1 and shown["val_bits_per_byte"] is None
    assert shown["val_loss"] < 7
    model, tokenizer = load(path)
    assert recipes.evaluate(path).loss == pytest.approx(shown["val_loss"], abs=1e-4)
    sample = json.loads((path / "samples.jsonl").read_text().splitlines()[-1])["text"]
    assert "model" in sample and "target" in sample
    if kind == "classify":
        assert load_labels(path) == ("animal", "other") and (path / "report.html").is_file()
        recipe = RunFolder(path).recipe.read_text()
        assert "labels = [" in recipe and "[derived.examples]" in recipe
    if kind == "translate":
        assert answers_of(path, split="test", beam=2).scores.n == len(json_lines_of(path, "test"))


def answers_of(path: Path, **how: Any) -> Any:
    model, task = open_run(path)
    return task.score_answers(model, **how)


def json_lines_of(path: Path, split: str) -> list[Any]:
    return open_run(path)[1].source.examples[split]


def test_resumed_is_never_stopped(tmp_path: Path, pairs: str):
    """Dropout, accumulation and examples in pools: stopped after 4 of 8 steps and gone on, bit for bit."""
    words = ["model.family=original", "training.steps=8", "training.dropout=0.2", "training.micro_batch_size=2"]
    words += ["training.checkpoint_every=4", "training.keep_checkpoints=9", "training.optimizer=muon"]
    whole = run(tmp_path, "translate", pairs, *words, name="whole")
    again = stopped_at(whole, 4)
    recipes.resume(again)
    ours, theirs = (load_model(p / "checkpoints" / "step-000008" / "model").state_dict() for p in (whole, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_bad_number_is_named_in_a_translator_too(tmp_path: Path, pairs: str):
    """The look for its origin asks the model what the task does, whatever it is called with."""
    done = run(tmp_path, "translate", pairs, "training.steps=1")
    tensors = load_weights(done / "model" / "model.safetensors")
    name = next(name for name in tensors if "cross" in name or "encoder_attn" in name or "encdec" in name.lower())
    save_weights(done / "model" / "model.safetensors", {**tensors, name: tensors[name] * math.nan})
    with pytest.raises(DivergenceError, match=r"first bad number in decoder\.blocks\.0\.\S+ \(a weight\)"):
        run(tmp_path, "translate", pairs, f"training.start_from={done}", name="again")


def test_it_is_not_asked_to_write_on(tmp_path: Path, pairs: str):
    path = run(tmp_path, "translate", pairs, "training.steps=1")
    shown = CliRunner().invoke(app, ["generate", str(path), "--prompt", "red"])
    assert isinstance(shown.exception, UsageError)
    assert str(shown.exception) == (f"{path}: its EncoderDecoder does not generate; use: glassformer translate {path}")


def test_letters_in_sounds_out(tmp_path: Path):
    """Two tokenizers: the source's lies beside the target's."""
    rows = [{"source": text[::2], "target": " ".join(text.upper()[:3])} for text in sentences()]
    data = write(tmp_path / "words.jsonl", rows)
    words = ["tokenizer.kind=words", "tokenizer.source_kind=characters", "tokenizer.vocab_size=60"]
    path = run(tmp_path, "translate", data, *words)
    _, tokenizer = load(path)
    assert (tokenizer.kind, load_source_tokenizer(path).kind) == ("words", "characters")
    scored = answers_of(path, split="validation", beam=1, limit=3)
    assert len(scored.sources) == 3 and "wrong words" in scored.lines()[0]


def test_a_classifier_begins_with_what_masks_taught(tmp_path: Path, pairs: str, labelled: str):
    masked = run(tmp_path, "masked_tokens", pairs, "model.family=modern", name="masked")
    heard: list[str] = []
    done = recipes.train(
        None,
        ["task.kind=classify", *SMALL, "model.family=modern", "training.steps=1", "training.batch_size=5",
         f"training.start_from={masked}", "training.optimizer=adamw", "training.learning_rate=1e-9",
         "training.weight_decay=0"],
        data=labelled, out=tmp_path / "tuned", log=heard.append,
    )  # fmt: skip
    assert done is not None
    theirs, ours = load_model(masked / "model").state_dict(), load_model(done.path / "model").state_dict()
    torch.testing.assert_close(ours["blocks.0.attention.qkv.weight"], theirs["blocks.0.attention.qkv.weight"])
    assert load(masked)[1] == load(done.path)[1], "the tokenizer comes along"
    assert any("fresh: classifier.bias, classifier.weight" in line for line in heard)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["model.kind=encoder"], UsageError, "model.kind=encoder cannot do task.kind=translate; "),
        (["task.label_smoothin=1"], UsageError, "unknown key task.label_smoothin; did you mean"),
        (["task.label_smoothing=2"], UsageError, "task.label_smoothing=2 is too large; use less than 1"),
        (["training.batch_size=auto"], UsageError, "training.batch_size=auto is measured for decoders on texts"),
        (["training.start_from=nowhere"], Exception, "nowhere"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], error: type[Exception], message: str, tmp_path: Path, pairs: str):
    with pytest.raises(error) as shown:
        recipes.train(None, ["task.kind=translate", *SMALL, *STEPS, *words], data=pairs, out=tmp_path / "run")
    assert message in str(shown.value) and "\n" not in str(shown.value)
    assert not (tmp_path / "run").exists()


LABELLED = [{"text": f"{word} {i} b c d e f", "label": word} for word in ("good", "bad") for i in range(40)]
TAGGED = [{"source": f"a b {c}", "target": "x y x"} for c in "abcdefghi"]
PLAIN = [{"text": f"a b c d e f g h i {c}"} for c in "abcdefghi"]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("kind", "rows", "wrong", "message"),
    [
        ("classify", LABELLED, {"text": "x", "label": "goood"}, "the label 'goood' is not .* did you mean good"),
        ("classify", LABELLED, {"text": "x"}, "'x' has no label; give each source one"),
        ("tag", TAGGED, {"source": "a", "target": "z"}, "the label 'z' is not one that was learned"),
        ("tag", TAGGED, {"source": "a b", "target": "x"}, "has 2 words and 1 tag"),
        ("translate", TAGGED, {"text": "alone"}, "'alone' has no target; give each source one"),
        ("masked_tokens", PLAIN, {"text": "a b"}, "no text has 8 tokens.*give longer texts"),
    ],
)
def test_what_an_evaluation_would_stumble_over_is_found_before_the_first_step(
    tmp_path: Path, kind: str, rows: list[dict[str, str]], wrong: dict[str, str], message: str, split: str
):
    held_out = [{**rows[0], "split": "validation"}] if split == "test" else []
    shown = [{**row, "split": "train"} for row in rows] + held_out + [{**wrong, "split": split}]
    data = write(tmp_path / "rows.jsonl", shown)
    with pytest.raises(DataError, match=rf"rows\.jsonl, {split} examples: .*{message}") as error:
        recipes.train(None, [f"task.kind={kind}", *SMALL, *STEPS], data=data, out=tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_classifier_is_measured_by_the_labels_that_it_learned(tmp_path: Path, labelled: str):
    """Whatever labels other examples have, and in whatever order: also none to learn from, and one label alone."""
    path = run(tmp_path, "classify", labelled)
    last = load_labels(path)[-1]
    rows = [json.loads(line) for line in Path(labelled).read_text().splitlines()]
    shown = [{**row, "split": "test"} for row in rows if row["label"] == last]
    model, task = open_run(path, write(tmp_path / "one.jsonl", shown))
    assert task.labels == load_labels(path)
    assert {label for _, label in task.encoded("test", 8)} == {len(task.labels) - 1}
    assert recipes.evaluate(path, data=str(tmp_path / "one.jsonl"), split="test").n == len(shown)
    unknown = write(tmp_path / "unknown.jsonl", [{"text": "x", "label": "unheard", "split": "test"}])
    with pytest.raises(DataError, match="the label 'unheard' is not one that was learned"):
        recipes.evaluate(path, data=unknown, split="test")


def test_changed_examples_are_noticed(tmp_path: Path, pairs: str):
    path = run(tmp_path, "translate", pairs, "training.checkpoint_every=3")
    (path / "summary.json").unlink()
    lines = Path(pairs).read_text().splitlines()
    Path(pairs).write_text("\n".join([*lines[:-1], '{"source": "another", "target": "one"}']) + "\n")
    with pytest.raises(RunError, match="has changed since; put it back"):
        recipes.resume(path)


def test_there_is_nothing_to_learn_from(tmp_path: Path):
    with pytest.raises(DataError):
        recipes.train(None, ["task.kind=spans", *SMALL], data=write(tmp_path / "no.jsonl", []))


def test_pairs_that_do_not_fit_are_left_out_and_counted(tmp_path: Path):
    """A window of 8 holds 7 tokens and an end; half a sentence would be no translation of a whole one."""
    short = [{"source": f"{i}", "target": f"{i} a"} for i in range(60)]
    long = [{"source": " ".join("abcdefghijkl"), "target": f"{i}"} for i in range(3)]
    data = write(tmp_path / "pairs.jsonl", [{**row, "split": s} for s in ("train", "validation") for row in short])
    more = [{**row, "split": "train"} for row in long] + [{**row, "split": "test"} for row in (*short, long[0])]
    Path(data).write_text(Path(data).read_text() + "".join(json.dumps(row) + "\n" for row in more))
    heard: list[str] = []
    recipes.train(
        None,
        ["task.kind=translate", *SMALL, "model.block_size=8", "training.steps=1", "training.batch_size=4"],
        data=data,
        out=tmp_path / "run",
        log=heard.append,
    )
    assert "warning: 3 pairs of 63 (train) longer than 8 tokens left out" in heard
    assert "warning: 1 pair of 61 (test) longer than 8 tokens cut" in heard


def test_another_kind_of_model_leaves_the_recipes_shape_behind():
    """What a GRU does not know of a Transformer's recipe is forgotten; what is typed for it is not."""
    r = read_recipe("phonemes", ["model.kind=seq2seq-attention", "model.n_embd=64"])
    config = shape.model_config(r, **(TASKS[r.task.kind].placeholders or {}))
    assert (config.kind, config.n_embd, config.block_size) == ("seq2seq-attention", 64, r.model.get("block_size"))
    with pytest.raises(UsageError, match=r"unknown key model\.n_head"):
        read_recipe("phonemes", ["model.kind=seq2seq", "model.n_head=4"])
    with pytest.raises(UsageError, match=r"model\.kind=n-gram is not trained"):
        shape.model_config(read_recipe("shakespeare-char", ["model.kind=n-gram"]), vocab_size=65)


def test_an_lstm_in_the_loop_of_the_gpt(tmp_path: Path):
    (tmp_path / "play.txt").write_text("to be or not to be that is the question\n" * 60)
    words = ["model.kind=lstm", "model.n_embd=8", "training.steps=3", "training.batch_size=2", "model.block_size=16"]
    done = recipes.train("shakespeare-char-cpu", words, data=str(tmp_path / "play.txt"), out=tmp_path / "run")
    assert done is not None and done.loss.bits_per_byte
    assert recipes.evaluate(done.path).loss == pytest.approx(done.loss.loss, abs=1e-5)
