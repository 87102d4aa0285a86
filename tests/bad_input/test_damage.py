"""Damaged files: a run's, a model's, a token store's. What can be made again is; the rest is named; nothing is lost."""

from __future__ import annotations

import json
import shutil

import pytest
from command_line import TINY, files, same_end

from glassformer.errors import known_names
from glassformer.files import cache_folder
from glassformer.hub import FAMILIES


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path):
    path.unlink()


def forget_random(path):
    state = json.loads(path.read_text())
    del state["random"]
    path.write_text(json.dumps(state))


MODEL = [
    ("config.json", truncate, "config.json: not valid JSON ("),
    ("model.safetensors", truncate, "model.safetensors: damaged or truncated ("),
    ("model.safetensors", remove, "model.safetensors: the weights are missing; the folder is incomplete: copy or "),
    ("tokenizer.json", truncate, "tokenizer.json: not valid JSON ("),
    ("tokenizer.json", remove, ": holds no tokenizer.json, *.model, vocab.json or vocab.txt; is it a model folder?"),
    ("tokenizer_config.json", truncate, "tokenizer_config.json: not valid JSON ("),
]


@pytest.mark.parametrize(("name", "damage", "message"), MODEL, ids=[f"{d.__name__} {n}" for n, d, _ in MODEL])
def test_a_damaged_model_is_one_line(glassformer, finished, tmp_path, name, damage, message):
    damage(finished / "model" / name)
    before = files(tmp_path)
    for command in (["generate", finished, "--prompt", "Speak"], ["evaluate", finished]):
        result = glassformer(*command)
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
        assert result.err.startswith("error: ") and message in result.err
    assert files(tmp_path) == before


def test_a_config_of_another_shape(refused, finished):
    file = finished / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "n_embd": 32}))
    refused("generate", finished, code=1, line=f"{finished}/model: config.json asks for embedding.token.weight of "
            "shape (44, 32), the weights hold (44, 16)")  # fmt: skip
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "gpt3"}))
    line = f"{finished}/model: model_type 'gpt3' is not one that glassformer reads; {known_names(FAMILIES)}"
    refused("generate", finished, code=1, line=line)


def test_a_tokenizer_of_another_model(refused, finished, tmp_path):
    from glassformer.processors.tokenizers import TOKENIZERS

    TOKENIZERS["bytes"]([]).save(finished / "model")
    line = (
        f"{finished}/model: 257 tokens in the tokenizer, 44 logits in the model; they do not "
        "belong together: take the tokenizer of this model"
    )
    refused("generate", finished, code=1, line=line)


CHECKPOINT = [
    ("model/model.safetensors", flip, "model/model.safetensors is damaged (its SHA-256 differs)"),
    ("optimizer.safetensors", flip, "optimizer.safetensors is damaged (its SHA-256 differs)"),
    ("optimizer.safetensors", remove, "optimizer.safetensors is missing"),
    ("model/tokenizer.json", flip, "model/tokenizer.json is damaged (its SHA-256 differs)"),
    ("model/config.json", empty, "model/config.json is damaged (its SHA-256 differs)"),
    ("state.json", truncate, "state.json is damaged"),
    ("state.json", remove, "state.json is missing"),
    ("state.json", forget_random, "state.json is damaged (no random)"),
]


@pytest.mark.parametrize(("name", "damage", "message"), CHECKPOINT, ids=[f"{d.__name__} {n}" for n, d, _ in CHECKPOINT])
def test_a_damaged_checkpoint_is_passed_over(glassformer, half, small_runs, name, damage, message):
    """the run continues from the one before and ends as if nothing had happened."""
    damage(half / "checkpoints" / "step-000007" / name)
    result = glassformer("resume", half, "--quiet")
    assert result.code == 0
    assert result.err.splitlines()[:2] == [
        f"damaged, passed over: step-000007: {message}",
        "going on after step 4 of 13",
    ]
    assert same_end(half, small_runs / "finished")


def test_folders_that_are_no_checkpoints_are_left_alone(glassformer, half):
    (half / "checkpoints" / "step-last").mkdir()
    (half / "checkpoints" / ".step-000009.abc.part").mkdir()  # a crash in the middle of a checkpoint
    assert glassformer("resume", half, "--quiet").code == 0
    assert (half / "checkpoints" / "step-last").is_dir()


def test_when_no_checkpoint_is_whole(refused, half):
    for checkpoint in (half / "checkpoints").iterdir():
        truncate(checkpoint / "state.json")
    refused("resume", half, code=1, line=f"{half}: all checkpoints are damaged; step-000007: state.json is damaged; "
            "start again with: glassformer train")  # fmt: skip


def test_before_the_first_checkpoint_resume_starts_again(refused, glassformer, half, small_runs):
    shutil.rmtree(half / "checkpoints")
    refused("train", *TINY, "--data", "play.txt", "--out", half, code=1,
            line=f"{half} already holds a run; continue it: glassformer resume {half}, or choose another folder "
            "with --out")  # fmt: skip
    result = glassformer("resume", half, "--quiet")
    assert (result.code, result.err) == (0, "no checkpoint yet: from the start\n")
    assert same_end(half, small_runs / "finished")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged or edited ("),
        (lambda text: "", "damaged or edited ('machine' is missing); put it back to resume"),
        (lambda text: text.replace("n_layer = 1\n", 'n_layer = "many"\n', 1), "damaged or edited ("),
        (lambda text: text.replace("threads = ", "threds = "), "damaged or edited ('threads' is missing); put it"),
    ],
)
def test_an_edited_recipe(glassformer, half, change, message):
    file = half / "recipe.toml"
    file.write_text(change(file.read_text()))
    before = files(half)
    result = glassformer("resume", half)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert result.err.startswith(f"error: {file}: ") and message in result.err
    assert files(half) == before


def test_a_text_that_is_gone_or_changed(refused, glassformer, play):
    stopped = glassformer("train", *TINY, "training.steps=5", "--data", "play.txt", "--out", "run", "-q")
    assert stopped.code == 0
    shutil.rmtree("run/checkpoints/step-000005")  # as if it had been stopped after step 4
    content = play.read_text()
    play.write_text(content + "Speak.\n")
    refused("resume", "run", code=1, names=(f"run: {play} has changed", "put it back"))
    play.unlink()
    result = glassformer("resume", "run")
    assert result.code == 1 and result.err.startswith(
        f"error: run: what it learns from cannot be read again: {play}: no such file, folder or corpus; "
    )
    play.write_text(content)
    assert glassformer("resume", "run", "-q").code == 0


STORE = [("train-00000.bin", flip), ("meta.json", truncate), ("validation-documents.bin", remove)]


@pytest.mark.parametrize(("name", "damage"), STORE, ids=[f"{d.__name__} {n}" for n, d in STORE])
def test_a_damaged_store_in_the_cache_is_made_again(glassformer, play, tmp_path, monkeypatch, name, damage):
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))
    first = glassformer("train", *TINY, "--data", "play.txt", "--out", "first", "--quiet")
    (store,) = (cache_folder() / "stores").iterdir()
    whole = files(store)
    damage(store / name)
    second = glassformer("train", *TINY, "--data", "play.txt", "--out", "second", "--quiet")
    assert (first.code, second.code, second.err) == (0, 0, first.err)
    assert files(store) == whole
    assert same_end(tmp_path / "first", tmp_path / "second")


def test_a_damaged_store_of_your_own_is_an_error(refused, glassformer, play, tmp_path):
    assert glassformer("data", "prepare", "play.txt", "--out", "mine").code == 0
    truncate(tmp_path / "mine" / "train-00000.bin")
    names = ("error: mine: is in the way (mine/train-00000.bin: truncated (", "delete it or choose another folder")
    refused("data", "prepare", "play.txt", "--out", "mine", code=1, names=names)


def test_a_diverging_run_names_the_step_and_the_module_and_keeps_its_checkpoint(glassformer, play, tmp_path):
    result = glassformer("train", *TINY, "training.learning_rate=1e30", "training.schedule=constant",
                         "training.checkpoint_every=1", "--data", "play.txt", "--out", "run", "-q")  # fmt: skip
    line = result.err.splitlines()[-1]
    assert result.code == 1 and result.out == ""
    norm = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["grad_norm"]
    assert line == (
        "error: training diverged at step 2: loss nan, gradient norm nan (gradient norms before it: "
        f"{norm:.3g}), first bad number in blocks.0.attention_norm (its output); run keeps step-000001; try half the "
        "learning rate (training.learning_rate), more warm-up, training.grad_clip=1, or "
        "training.on_divergence=skip to leave out such a batch"
    )
    assert (tmp_path / "run" / "checkpoints" / "step-000001" / "state.json").is_file()
