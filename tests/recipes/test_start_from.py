"""A run that starts from a model takes its whole configuration and its tokenizer; what differs is shown or refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from play import PLAY
from resolving import CPU, TINY, resolved
from toys import shaken

from glassformer import recipes
from glassformer.errors import UsageError
from glassformer.hub import load, load_model, save
from glassformer.models import NOTHING_SET, Decoder, GenerationSettings, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.recipes import compile_choice, probe, trainer
from glassformer.recipes.plan import plan
from glassformer.recipes.start_from import Start
from glassformer.tasks import NextToken
from glassformer.training import RunFolder

OWN: dict[str, Any] = {  # no field as a fresh model would have it
    "family": "modern", "block_size": 29, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "head_width": 6, "n_embd": 20,
    "n_hidden": 37, "rotary_base": 500.0, "rotary_scaling": {"rope_type": "linear", "factor": 2.0}, "norm_eps": 1e-3,
    "qk_norm": False, "tied_head": False, "patterns": ["window(7)", "causal"], "logit_softcap": 9.0,
}  # fmt: skip
STILL = ["training.steps=2", "training.learning_rate=1e-9", "training.compile=off", "training.batch_size=3"]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A model folder whose table has more rows than its tokenizer has tokens."""
    folder = tmp_path_factory.mktemp("published") / "model"
    tokenizer = build_tokenizer("characters", [PLAY])
    model = shaken(Decoder(ModelConfig.make(**OWN, vocab_size=tokenizer.vocab_size + 3)))
    save(folder, model, tokenizer)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "ft.txt"
    path.write_text(PLAY.replace("famish", "starve"))
    return str(path)


def tune(folder: Path, *words: str, data: str | None = None, recipe: str | None = None) -> tuple[Path, list[str]]:
    heard: list[str] = []
    done = recipes.train(recipe, [*STILL, *words], data=data, out=folder / "tuned", log=heard.append)
    assert done is not None
    return done.path, heard


def test_the_whole_configuration_and_the_tokenizer_are_the_models(tmp_path, published, text):
    """Every field, so also those without tensors; after two steps at a rate of nothing it computes the same."""
    path, heard = tune(tmp_path, f"training.start_from={published}", data=text)
    (theirs, tokenizer), (ours, kept) = load(published), load(path)
    assert ours.config == theirs.config and kept == tokenizer
    ids = torch.randint(tokenizer.vocab_size, (2, 23), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs(ids), atol=1e-5, rtol=1e-5)
    assert any("fresh: none" in line for line in heard)
    assert not any("vocab_size" in line or "never occur" in line for line in heard), heard
    recipe = (path / "recipe.toml").read_text()
    assert 'optimizer = "adamw"' in recipe and "sequence_length = 29" in recipe


def test_no_longer_than_the_text_has_room_for_and_the_model_keeps_its_length(tmp_path, published):
    short = tmp_path / "short.txt"
    short.write_text(PLAY[:700])
    path, _ = tune(tmp_path, f"training.start_from={published}", data=str(short))
    assert "sequence_length = 16" in (path / "recipe.toml").read_text() and load_model(path / "model").config == (
        load_model(published).config
    )


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["model.norm_eps=1e-5"], "model.norm_eps = 1e-05  (0.001 in "),
        (["model.rotary_base=10000"], "model.rotary_base = 10000.0  (500.0 in "),
        (["model.n_layer=3"], "fresh: blocks.2."),
        (["model.block_size=17"], "model.block_size = 17  (29 in "),
        (["tokenizer.kind=bytes"], "fresh: embedding.token.weight, head.weight"),
    ],
)
def test_what_is_asked_for_is_shown_with_both_values(tmp_path, published, text, words, shown):
    path, heard = tune(tmp_path, f"training.start_from={published}", *words, data=text)
    assert any(shown in line for line in heard), heard
    if words[0].startswith("model."):
        key, value = words[0].removeprefix("model.").split("=")
        assert getattr(load_model(path / "model").config, key) == float(value)


@pytest.mark.parametrize(
    ("recipe", "words", "parts"),
    [
        ("[model]\nnorm_eps = 1e-5\n", [], ["model.norm_eps=1e-05 (0.001 there)", "on the command line"]),
        ("[model]\nrotary_base = 7.0\nnorm_eps = 1e-5\n", [], ["rotary_base=7.0 (500.0 there)", "norm_eps"]),
        ('[model]\nfamily = "original"\n', [], ["model.positions=sinusoidal (rotary there)"]),
        ('[tokenizer]\nkind = "bytes"\n', [], ["tokenizer.kind=bytes", "on the command line"]),
        ("", ["model.n_embd=24"], ["model.n_embd=24 (20 there)", "cannot be kept", "leave that out"]),
        ("", ["model.n_hidden=41"], ["model.n_hidden=41 (37 there)", "feedforward"]),
        ("", ["model.kind=gru"], ["model.kind=gru", "kind decoder"]),
        ("", ["task.kind=tag"], ["task.kind=tag", "next_token"]),
        ("", ["tokenizer.vocab_size=900"], ["tokenizer.vocab_size=900", "leave it out"]),
        ("", ["training.sequence_length=30"], ["training.sequence_length=30", "model.block_size=29"]),
    ],
)
def test_what_was_not_asked_for_or_cannot_keep_the_weights_is_refused(tmp_path, published, text, recipe, words, parts):
    path = tmp_path / "own.toml"
    path.write_text(recipe)
    with pytest.raises(UsageError) as refused:
        tune(tmp_path, f"training.start_from={published}", *words, data=text, recipe=str(path))
    assert all(part in str(refused.value) for part in parts) and "\n" not in str(refused.value)
    assert not (tmp_path / "tuned").exists()


def test_a_recipe_that_names_the_model_asks_for_what_it_sets(tmp_path, published, text):
    path = tmp_path / "own.toml"
    path.write_text(f'[model]\nnorm_eps = 1e-5\n[training]\nstart_from = "{published}"\n')
    done, heard = tune(tmp_path, data=text, recipe=str(path))
    assert load_model(done / "model").config.norm_eps == 1e-5
    assert any("training.learning_rate" not in line for line in heard)


def test_equal_sizes_are_not_equal_tokens(tmp_path, text):
    """Another alphabet with as many symbols: no row of a table may be taken for the row of another symbol."""
    folder = tmp_path / "model"
    tokenizer = build_tokenizer("characters", ["".join(chr(0x4E00 + i) for i in range(len(set(PLAY))))])
    assert tokenizer.vocab_size == build_tokenizer("characters", [PLAY]).vocab_size
    save(folder, shaken(Decoder(ModelConfig.make(**OWN, vocab_size=tokenizer.vocab_size))), tokenizer)
    Path(text).write_text(PLAY)
    _, heard = tune(tmp_path, f"training.start_from={folder}", "tokenizer.kind=characters", data=text)
    assert any("fresh: embedding.token.weight, head.weight" in line for line in heard), heard


def test_a_table_of_positions_is_cut_to_fewer_places(tmp_path, text):
    folder = tmp_path / "model"
    tokenizer = build_tokenizer("characters", [PLAY])
    shape = {"block_size": 29, "n_layer": 1, "n_head": 2, "n_embd": 10, "vocab_size": tokenizer.vocab_size}
    model = shaken(Decoder(ModelConfig.make(**shape)))
    save(folder, model, tokenizer)
    path, _ = tune(tmp_path, f"training.start_from={folder}", "model.block_size=17", data=text)
    kept = load_model(path / "model").positions.weight
    torch.testing.assert_close(kept, model.positions.weight[:17], atol=1e-5, rtol=1e-5)


def test_the_name_of_a_pulled_model_is_kept_and_the_run_resumes_in_another_folder(
    tmp_path, published, text, monkeypatch
):
    """Killed before the first checkpoint, in a folder where the name means nothing."""
    home = tmp_path / "cache"
    monkeypatch.setenv("GLASSFORMER_CACHE", str(home))
    (home / "models").mkdir(parents=True)
    (home / "models" / "small-one").symlink_to(published)
    path, _ = tune(tmp_path, "training.start_from=small-one", "training.checkpoint_every=0", data=text)
    assert 'start_from = "small-one"' in (path / "recipe.toml").read_text()
    first = (path / "model" / "model.safetensors").read_bytes()
    run = RunFolder(path)
    for folder in run.checkpoints.iterdir():
        folder.rename(tmp_path / folder.name)
    run.summary.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipes.resume(path)
    assert (path / "model" / "model.safetensors").read_bytes() == first


def test_relative_paths_are_made_absolute(tmp_path, published, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ft.txt").write_text(PLAY)
    Path("m").symlink_to(published)
    done = recipes.train(None, [*STILL, "training.start_from=m", "tokenizer.path=m"], data="ft.txt", out="r")
    assert done is not None
    shown = recipes.reading.tomllib.loads(Path("r/recipe.toml").read_text())
    for value in (shown["data"]["source"], shown["training"]["start_from"], shown["tokenizer"]["path"]):
        assert Path(value).is_absolute()


def test_the_loss_before_is_logged_and_a_run_that_only_makes_it_worse_warns(tmp_path, text):
    """Trained a while and then at a thousand times the rate."""
    Path(text).write_text(PLAY)
    shape = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16"]
    trained = recipes.train(None, [*shape, "training.steps=60", "training.compile=off"], data=text, out=tmp_path / "a")
    assert trained is not None
    _, heard = tune(tmp_path, f"training.start_from={trained.path}", "training.eval_batches=0", data=text)
    before = [line for line in heard if "before the first step" in line]
    assert float(before[0].split()[-1]) == pytest.approx(trained.loss.loss, abs=2e-4)
    assert not any("never that low" in line for line in heard)
    heard.clear()
    recipes.train(None, [*STILL, "training.learning_rate=0.9", f"training.start_from={trained.path}"], data=text,
                  out=tmp_path / "b", log=heard.append)  # fmt: skip
    assert any("never that good again" in line and "training.learning_rate" in line for line in heard)
    events = (tmp_path / "b" / "events.jsonl").read_text()
    assert "never that good again" in events and json.loads(events.splitlines()[-1])["kind"] == "warning"


def with_tokenizer(tokenizer) -> NextToken:
    task = NextToken()
    task.source = SimpleNamespace(tokenizer=tokenizer, source_tokenizer=None, labels=())
    return task


def test_a_model_is_not_kept_in_memory_beside_the_run(published):
    start = Start.open(str(published))
    model, tokenizer = load(published)
    start.begin(Decoder(model.config), with_tokenizer(tokenizer))
    assert "model" not in vars(start)


def test_a_plan_is_made_for_the_model_to_start_from(tmp_path, published, text):
    """Its parameters, in sequences as long as the run would read; and what a run refuses a plan refuses."""
    words = [f"training.start_from={published}"]
    shown = plan(None, words, data=text, probing=False)
    model = load_model(published)
    assert shown.parameters == model.parameter_count() and shown.shape.startswith("modern, 2 x 20, 4 heads")
    assert any("training.optimizer = adamw" in note for note in shown.notes)
    with pytest.raises(UsageError, match="cannot be kept"):
        plan(None, [*words, "model.n_embd=24"], data=text, probing=False)


def test_what_is_tried_on_the_machine_is_logged_before_it_is_tried(monkeypatch):
    """A minute of silence looks like a program that hangs."""
    lines: list[str] = []
    monkeypatch.setattr(compile_choice, "WORTH_COMPILING", 0.0)
    monkeypatch.setattr(trainer, "compiled", lambda loss, device: (lines.append("compiling now"), loss)[1])
    monkeypatch.setattr(probe.Stepper, "time", lambda *how: (lines.append("timing now"), 0.2)[1])
    _, t = resolved(None, *TINY, "training.steps=7")
    compile_choice.compile_choice(NextToken(), ModelConfig.make(**{**OWN, "vocab_size": 61}), t, CPU, 1, lines.append)
    assert [line.split()[0] for line in lines] == ["timing", "timing", "compiling", "compiling", "compiled", "timing"]


def test_generation_settings_of_a_folder_go_with_its_tokenizer(published):
    (model, tokenizer), start = load(published), Start.open(str(published))
    start.model.generation_settings = GenerationSettings(eos_token_id=(3, 5))
    ours = Decoder(model.config)
    start.begin(ours, with_tokenizer(tokenizer))
    assert ours.generation_settings.eos_token_id == (3, 5)
    start.model.generation_settings = GenerationSettings(eos_token_id=(3, 5))
    other = Decoder(model.config)
    start.begin(other, with_tokenizer(build_tokenizer("bytes", [PLAY])))
    assert other.generation_settings == NOTHING_SET
