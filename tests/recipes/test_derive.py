"""What is derived when nobody says it: the rules, checked at figures that can be checked by hand."""

from __future__ import annotations

import math
import re

import pytest

from glassformer.errors import DataError, DeviceError, UsageError
from glassformer.recipes import derive, read_recipe


def shape(*overrides: str, vocab_size: int = 65):
    config = derive.model_config(read_recipe(None, overrides), vocab_size=vocab_size)
    return config.n_layer, config.n_head, config.n_embd, config.block_size


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
    assert shape(*overrides) == expected


def test_the_vocabulary_is_the_tokenizer_s_whatever_the_size_says():
    assert derive.model_config(read_recipe(None, ["model.size=gpt2"]), vocab_size=65).vocab_size == 65


@pytest.mark.parametrize(
    ("n_bytes", "n_characters", "kind"),
    [(1_115_394, 65, "characters"), (1_000_000, 3000, "bpe"), (6_000_000, 65, "bpe"), (None, None, "bpe")],
)
def test_the_kind_of_tokenizer(n_bytes, n_characters, kind):
    choice = derive.tokenizer_choice(n_bytes, n_characters)
    assert choice.value == kind and choice.why


@pytest.mark.parametrize(
    ("n_bytes", "size"), [(1000, 512), (1_000_000, 1024), (16_777_216, 4096), (10**12, 32_768), (None, 32_768)]
)
def test_the_size_of_a_vocabulary_is_about_the_root_of_the_bytes(n_bytes, size):
    assert derive.vocab_size_choice(n_bytes).value == size


def test_sizes_grow_with_the_machine_and_with_the_text_and_each_says_why():
    def choose(tokens, gflops):
        recipe = read_recipe(None)
        choices = derive.size_choices(recipe, tokens, 65, gflops)
        assert all(choice.why for choice in choices)
        assert {choice.key for choice in choices} >= {"model.block_size", "model.n_layer", "training.steps"}
        config = derive.model_config(recipe, vocab_size=65)
        return config.parameter_count(), recipe.training.steps * recipe.training.batch_size * config.block_size

    laptop, server = choose(1_000_000, 50), choose(1_000_000, 5000)
    assert laptop[0] < server[0]
    short, long = choose(10_000, 5000), choose(10_000_000, 5000)
    assert short[0] < long[0] and short[1] <= 1.01 * derive.PASSES * 10_000  # little text is not read for ever
    flops = 6 * laptop[0] * laptop[1]
    assert flops <= 1.01 * derive.MINUTES * 60 * 50e9 * derive.UTILISATION  # and it ends in the minutes promised


def test_sizes_do_not_follow_from_how_busy_the_machine_is(monkeypatch):
    """A measured speed halves beside other work; and more processors still mean a larger model."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(derive, "processors", lambda: 3)
    quiet = derive.typical_gflops("cpu")
    monkeypatch.setattr(derive, "peak_flops", lambda device, precision: 1e9)
    assert derive.typical_gflops("cpu") == quiet > 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert 3 * derive.typical_gflops("cpu") == quiet
    same = set()
    for measured in (97e12, 131e12, 170e12):  # a GPU, to the nearest power of two
        monkeypatch.setattr(derive, "peak_flops", lambda device, precision, measured=measured: measured)
        same.add(derive.typical_gflops("cuda"))
    assert len(same) == 1


@pytest.mark.parametrize(("tokens", "gflops"), [(300, 50), (60_000, 50), (1_000_000, 50), (10**8, 50), (10**8, 5000)])
def test_the_room_that_is_told_is_no_less_than_what_is_built(tokens, gflops):
    """0.28 M were announced once, and 114,112 built: what is told is a limit, and says so where it is too little."""
    recipe = read_recipe(None)
    why = next(c.why for c in derive.size_choices(recipe, tokens, 65, gflops) if c.key == "model.n_layer")
    number, unit = re.search(r"leave room for ([\d.,e+]+)( M)? parameters", why).groups()
    room = float(number.replace(",", "")) * (1e6 if unit else 1)
    config = derive.model_config(recipe, vocab_size=65)
    in_blocks = config.parameter_count() - 2 * 65 * config.n_embd
    assert why.startswith("the smallest shape: ") if room < 12 * 4 * 128**2 else in_blocks <= 1.1 * room
    for_machine = math.sqrt(derive.MINUTES * 60 * gflops * 1e9 * derive.UTILISATION / 120)
    assert (f"{tokens:,} tokens of text" in why) == (tokens * derive.PASSES / 20 < for_machine)


def test_what_is_set_is_never_derived_over():
    settings = ["model.family=classic", "model.block_size=17", "training.schedule=linear", "training.steps=3"]
    recipe = read_recipe(None, settings)
    keys = {choice.key for choice in derive.size_choices(recipe, 100_000, 65, 50)}
    assert not keys & {setting.partition("=")[0] for setting in settings}
    assert (recipe.model.get("family"), recipe.model.get("block_size"), recipe.training.schedule) == (
        "classic",
        17,
        "linear",
    )
    assert recipe.training.optimizer == "muon"


def test_a_text_too_short_for_any_derivation():
    with pytest.raises(DataError, match=r"199 tokens to train on, too few to learn from \(at least 200\)"):
        derive.size_choices(read_recipe(None), 199, 65, 50)
    derive.size_choices(read_recipe(None), 200, 65, 50)


def test_memory_is_counted_from_below(monkeypatch):
    """10 parameters' worth short is refused, enough is not: 16 bytes a parameter with AdamW, 12 with Muon."""
    recipe = read_recipe(None, ["model.n_layer=2", "training.batch_size=3", "training.micro_batch_size=2"])
    config = derive.model_config(recipe, vocab_size=65)
    others = 3 * 256 * 16 + 2 * 256 * 65 * 4  # a step's windows; one micro-batch's logits
    for optimizer, bytes_each in (("adamw", 16), ("muon", 12)):
        recipe.training.optimizer = optimizer
        enough = config.parameter_count() * bytes_each + others
        monkeypatch.setattr(derive, "available_memory", lambda device, enough=enough: enough)
        derive.check_memory(config, recipe.training, "cpu")
        monkeypatch.setattr(derive, "available_memory", lambda device, enough=enough: enough - 1)
        with pytest.raises(DeviceError, match=r"training needs at least 0\.0 GB"):
            derive.check_memory(config, recipe.training, "cpu")
    monkeypatch.setattr(derive, "available_memory", lambda device: None)  # a system that does not say
    derive.check_memory(config, recipe.training, "cpu")


@pytest.mark.parametrize(
    ("optimizer", "ignored"),
    [("adamw", "momentum=0.8"), ("sgd", "beta1=0.8"), ("adagrad", "weight_decay=0.2"), ("muon", "nesterov=true")],
)
def test_a_setting_of_another_optimizer_is_refused(optimizer: str, ignored: str):
    overrides = [f"training.optimizer={optimizer}", f"training.{ignored}"]
    r = read_recipe(None, overrides)
    with pytest.raises(UsageError, match=rf"training\.{ignored.split('=')[0]} .*is {optimizer};"):
        derive.check_optimizer_keys(r.training, overrides)
    derive.check_optimizer_keys(r.training, [*overrides[:1], "training.learning_rate=0.1", "model.n_layer=2"])


def test_tables_of_a_model_with_sines_begin_as_in_2017_unless_the_recipe_says():
    def init(*overrides: str):
        r = read_recipe(None, overrides)
        choices = derive.init_choice(r, derive.model_config(r, vocab_size=65))
        return r.training.init, [str(choice) for choice in choices]

    assert init() == ("gpt2", [])
    chosen, (why,) = init("model.positions=sinusoidal")
    assert chosen == "xavier" and why.startswith("training.init = xavier")
    assert init("model.positions=sinusoidal", "training.init=unit") == ("unit", [])
    assert init("model.family=original", "model.positions=learned") == ("gpt2", [])
