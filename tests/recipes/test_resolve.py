"""What a recipe leaves open is decided once, by rules that are checked at figures that can be checked by hand."""

from __future__ import annotations

import math
import re

import pytest
from pydantic import ValidationError
from resolving import CPU, resolved

from glassformer import recipes
from glassformer.errors import DataError, DeviceError, UsageError
from glassformer.models import parameter_count
from glassformer.recipes import defaults, machine, memory, read_recipe
from glassformer.recipes.draft import Draft
from glassformer.recipes.recipe_file import read_recipe_text
from glassformer.recipes.resolved import ResolvedRecipe, ResolvedTraining
from glassformer.recipes.shape import model_config
from glassformer.tasks import Choice, text
from glassformer.training import RunFolder


def sized(tokens: int, gflops: float, *overrides: str) -> Draft:
    """A recipe of nothing but these, with sizes for a text of so many tokens and 65 entries."""
    draft = Draft(read_recipe(None, overrides))
    defaults.sizes_for_text(draft, tokens, 65, gflops)
    return draft


def test_a_short_text_is_read_twenty_times():
    t = sized(100_000, 80.0).recipe
    read = t.training.steps * t.training.batch_size * t.model.get("block_size")
    assert read == pytest.approx(20 * 100_000, rel=0.01)


def test_recipes_are_frozen_and_a_choice_makes_a_new_one():
    """Nothing can be written into a recipe, resolved or not, nor into a section."""
    recipe = read_recipe(None, ["model.n_layer=2"])
    config, training = resolved(None)
    whole = ResolvedRecipe.of(recipe, training, config=config, machine=CPU)
    for r in (recipe, whole):
        for part, name in ((r, "name"), (r.training, "steps"), (r.model, "n_layer"), (r.data, "source")):
            with pytest.raises(ValidationError, match="frozen"):
                setattr(part, name, 7)
    draft = Draft(recipe)
    assert draft.choose("model.n_layer", 5, "") == 2 and draft.choose("model.n_embd", 8, "narrow") == 8
    draft.add([Choice("training.steps", 9, "few")])
    draft.note([Choice("machine.threads", 1, "small")])
    assert draft.recipe.model.fields == {"n_layer": 2, "n_embd": 8} and draft.recipe.training.steps == 9
    assert recipe.model.fields == {"n_layer": 2} and recipe.training.steps is None
    assert [choice.key for choice in draft.choices] == ["model.n_embd", "training.steps", "machine.threads"]


def test_what_was_decided_is_in_the_run_folder_and_is_not_decided_again(play, tmp_path, monkeypatch):
    """Every number of [training] and what the machine decided; resume measures nothing."""
    words = ["model.n_layer=1", "model.n_head=2", "model.n_embd=12", "model.block_size=11", "training.steps=4"]
    run = recipes.train(None, words, data=str(play), out=tmp_path / "run")
    recipe, rest = read_recipe_text(RunFolder(run.path))
    numbers = {name: getattr(recipe.training, name) for name in ResolvedTraining.__annotations__}
    assert None not in numbers.values() and {"steps", "sequence_length", "micro_batch_size"} <= numbers.keys()
    assert rest["machine"]["precision"] in ("fp32", "bf16") and rest["machine"]["compile"] is False

    def again(*args, **kwargs):
        raise AssertionError("decided a second time")

    for name in ("detect_machine", "choose_precision"):
        monkeypatch.setattr(machine, name, again)
    recipes.resume(run.path, ["training.steps=6"])
    assert read_recipe_text(RunFolder(run.path))[1]["machine"] == rest["machine"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (6, 6, 384, 256)),  # the lecture's
        (["model.n_layer=12"], (12, 12, 768, 256)),  # the dial: GPT-2's width
        (["model.n_layer=4", "model.n_embd=128"], (4, 2, 128, 256)),  # heads of 64
        (["model.n_layer=4", "model.n_embd=48"], (4, 1, 48, 256)),
        (["model.n_layer=4", "model.n_embd=128", "model.n_head=8"], (4, 8, 128, 256)),
        (["model.size=gpt2"], (12, 12, 768, 1024)),
        (["model.size=gpt2-xl", "model.block_size=32"], (48, 25, 1600, 32)),
        (["model.size=gpt2", "model.n_layer=3"], (3, 12, 768, 1024)),  # what is set stands
    ],
)
def test_the_shape_follows_from_what_is_set(overrides, expected):
    config, _ = resolved(None, *overrides)
    assert (config.n_layer, config.n_head, config.n_embd, config.block_size) == expected
    assert config.vocab_size == 65  # the tokenizer's, whatever the size says


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"steps": 1000, "batch_size": 32, "micro_batch_size": 32, "sequence_length": 256, "warmup_steps": 50}),
        (["training.steps=7"], {"eval_every": 1, "checkpoint_every": 1, "sample_every": 1, "warmup_steps": 0}),
        (["training.eval_every=0"], {"eval_every": 0, "checkpoint_every": 0, "sample_every": 0}),
        (["training.optimizer=sgd"], {"learning_rate": 0.1}),
        (["training.optimizer=muon", "training.sequence_length=16"], {"learning_rate": 3e-3, "sequence_length": 16}),
    ],
)
def test_numbers_that_follow_from_others(overrides, expected):
    _, t = resolved(None, *overrides)
    assert {name: getattr(t, name) for name in expected} == expected


def test_a_step_is_shared_by_processes():
    _, t = resolved(None, "training.batch_size=12", "training.micro_batch_size=5")
    assert [t.shared(n).micro_batch_size for n in (1, 2, 4)] == [5, 5, 3]
    with pytest.raises(UsageError, match=r"training\.batch_size=12 .* 5 processes; try training\.batch_size=15"):
        t.shared(5)
    _, sharded = resolved(None, "training.sharding=full")
    with pytest.raises(UsageError, match=r"training\.sharding=full.*torchrun"):
        sharded.shared(1)


@pytest.mark.parametrize(
    ("n_bytes", "n_characters", "kind"),
    [(1_115_394, 65, "characters"), (1_000_000, 3000, "bpe"), (6_000_000, 65, "bpe"), (None, None, "bpe")],
)
def test_the_kind_of_tokenizer(n_bytes, n_characters, kind):
    choice = text.tokenizer_choice(n_bytes, n_characters)
    assert choice.value == kind and choice.why


@pytest.mark.parametrize(
    ("n_bytes", "size"), [(1000, 512), (1_000_000, 1024), (16_777_216, 4096), (10**12, 32_768), (None, 32_768)]
)
def test_the_size_of_a_vocabulary_is_about_the_root_of_the_bytes(n_bytes, size):
    assert text.vocab_size_choice(n_bytes).value == size


def test_sizes_grow_with_the_machine_and_with_the_text_and_each_has_a_reason():
    def choose(tokens, gflops):
        draft = sized(tokens, gflops)
        assert all(choice.why for choice in draft.choices)
        assert {choice.key for choice in draft.choices} >= {"model.block_size", "model.n_layer", "training.steps"}
        config, t = model_config(draft.recipe, vocab_size=65), draft.recipe.training
        return parameter_count(config), t.steps * t.batch_size * config.block_size

    laptop, server = choose(1_000_000, 50), choose(1_000_000, 5000)
    assert laptop[0] < server[0]
    short, long = choose(10_000, 5000), choose(10_000_000, 5000)
    assert short[0] < long[0] and short[1] <= 1.01 * defaults.PASSES * 10_000  # little text is not read for ever
    flops = 6 * laptop[0] * laptop[1]
    assert flops <= 1.01 * defaults.MINUTES * 60 * 50e9 * defaults.UTILISATION  # it ends in the minutes promised


def test_sizes_do_not_follow_from_how_busy_the_machine_is(monkeypatch):
    """A measured speed halves beside other work; and more processors still mean a larger model."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "processors", lambda: 3)
    quiet = machine.typical_gflops("cpu")
    monkeypatch.setattr(machine, "peak_flops", lambda device, precision: 1e9)
    assert machine.typical_gflops("cpu") == quiet > 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert 3 * machine.typical_gflops("cpu") == quiet
    same = set()
    for measured in (97e12, 131e12, 170e12):  # a GPU, to the nearest power of two
        monkeypatch.setattr(machine, "peak_flops", lambda device, precision, measured=measured: measured)
        same.add(machine.typical_gflops("cuda"))
    assert len(same) == 1


@pytest.mark.parametrize(("tokens", "gflops"), [(300, 50), (60_000, 50), (1_000_000, 50), (10**8, 50), (10**8, 5000)])
def test_the_parameter_budget_is_no_less_than_what_is_built(tokens, gflops):
    """0.28 M were announced once, and 114,112 built: what is told is a limit, and says so where it is too little."""
    draft = sized(tokens, gflops)
    why = next(c.why for c in draft.choices if c.key == "model.n_layer")
    number, unit = re.search(r"allow ([\d.,e+]+)( M)? parameters", why).groups()
    room = float(number.replace(",", "")) * (1e6 if unit else 1)
    config = model_config(draft.recipe, vocab_size=65)
    in_blocks = parameter_count(config) - 2 * 65 * config.n_embd
    assert why.startswith("the smallest shape: ") if room < 12 * 4 * 128**2 else in_blocks <= 1.1 * room
    for_machine = math.sqrt(defaults.MINUTES * 60 * gflops * 1e9 * defaults.UTILISATION / 120)
    assert (f"{tokens:,} tokens of text" in why) == (tokens * defaults.PASSES / 20 < for_machine)


def test_what_is_set_is_never_decided_over():
    settings = ["model.family=classic", "model.block_size=17", "training.schedule=linear", "training.steps=3"]
    draft = sized(100_000, 50, *settings)
    assert not {choice.key for choice in draft.choices} & {setting.partition("=")[0] for setting in settings}
    keys = ("model.family", "model.block_size", "training.schedule", "training.optimizer")
    assert [draft.recipe.value(key) for key in keys] == ["classic", 17, "linear", "muon"]


def test_a_text_too_short_for_any_rule():
    with pytest.raises(DataError, match=r"199 tokens.*at least 200"):
        sized(199, 50)
    sized(200, 50)


def test_memory_is_counted_from_below(monkeypatch):
    """One byte short is refused, enough is not: 16 bytes a parameter with AdamW, 12 with Muon."""
    for optimizer, bytes_each in (("adamw", 16), ("muon", 12)):
        overrides = ["model.n_layer=2", "training.batch_size=3", "training.micro_batch_size=2"]
        config, t = resolved(None, *overrides, f"training.optimizer={optimizer}")
        others = 3 * 256 * 16 + 2 * 256 * 65 * 4  # a step's windows; one micro-batch's logits
        enough = parameter_count(config) * bytes_each + others
        monkeypatch.setattr(memory, "available_memory", lambda device, enough=enough: enough)
        memory.check_memory(config, t, "cpu")
        monkeypatch.setattr(memory, "available_memory", lambda device, enough=enough: enough - 1)
        with pytest.raises(DeviceError, match=r"training needs at least 0\.0 GB"):
            memory.check_memory(config, t, "cpu")
    monkeypatch.setattr(memory, "available_memory", lambda device: None)  # a system that does not say
    memory.check_memory(config, t, "cpu")


@pytest.mark.parametrize(
    ("optimizer", "ignored"),
    [("adamw", "momentum=0.8"), ("sgd", "beta1=0.8"), ("adagrad", "weight_decay=0.2"), ("muon", "nesterov=true")],
)
def test_a_setting_of_another_optimizer_is_refused(optimizer: str, ignored: str):
    overrides = [f"training.optimizer={optimizer}", f"training.{ignored}"]
    r = read_recipe(None, overrides)
    with pytest.raises(UsageError, match=rf"training\.{ignored.split('=')[0]} .*is {optimizer};"):
        defaults.check_optimizer_keys(r, overrides)
    defaults.check_optimizer_keys(r, [*overrides[:1], "training.learning_rate=0.1", "model.n_layer=2"])


@pytest.mark.parametrize(
    ("overrides", "init"),
    [
        ([], "gpt2"),
        (["model.positions=sinusoidal"], "xavier"),
        (["model.positions=sinusoidal", "training.init=unit"], "unit"),
        (["model.family=original", "model.positions=learned"], "gpt2"),
    ],
)
def test_tables_of_a_model_with_sines_begin_as_in_2017_unless_the_recipe_sets_it(overrides, init):
    draft = Draft(read_recipe(None, overrides))
    defaults.init_of_sines(draft, model_config(draft.recipe, vocab_size=65))
    assert draft.recipe.training.init == init and len(draft.choices) == (init == "xavier")


@pytest.mark.parametrize(("kind", "optimizer"), [("seq2seq", "adamw"), ("encoder_decoder", "muon")])
def test_muon_is_for_blocks(kind, optimizer):
    draft = Draft(read_recipe("phonemes", [f"model.kind={kind}"]))
    defaults.optimizer_of_kind(draft)
    assert draft.recipe.training.optimizer == optimizer and len(draft.choices) == (kind == "seq2seq")
