"""Reading a recipe from Python: defaults, overrides, flags, and that each mistake is one `UsageError`."""

from __future__ import annotations

import pytest

from glassformer.errors import UsageError
from glassformer.recipes import read_recipe
from glassformer.recipes.opening import open_task
from glassformer.recipes.schema import SECTIONS, Recipe


def test_an_empty_recipe_has_every_section_and_its_defaults():
    recipe = read_recipe(None)
    assert recipe == Recipe() and recipe.name == "run"
    assert SECTIONS == ("model", "tokenizer", "data", "training", "task")
    assert (
        recipe.training.seed == 1337 and recipe.data.source == "tinyshakespeare" and recipe.model.get("n_layer") is None
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.learning_rate=1e-3", 0.001),
        ("training.learning_rate=3", 3.0),
        ("training.beta2=.99", 0.99),
        ("model.bias=true", True),
        ("model.bias=no", False),
        ("training.steps=1_000", 1000),
        ("training.steps=1e3", 1000),
        ("training.steps='7'", 7),
        ("training.sample_prompt=To be, or not to be", "To be, or not to be"),
        ('training.sample_prompt="ROMEO:\\n"', "ROMEO:\n"),
        ("training.sample_prompt=a = b", "a = b"),
        ("training.sample_prompt=", ""),
        ("data.source=C:/texts/my file.txt", "C:/texts/my file.txt"),
        (" training.steps = 5 ", 5),
    ],
)
def test_values_of_overrides(text, value):
    section, key = text.partition("=")[0].strip().split(".")
    got = getattr(getattr(read_recipe(None, [text]), section), key)
    assert got == value and type(got) is type(value)


def test_the_last_of_two_overrides_holds_and_flags_leave_the_rest():
    recipe = read_recipe(
        "shakespeare-char-cpu", ["training.steps=5", "training.steps=6"], {"training": {"seed": 3, "device": None}}
    )
    assert (recipe.training.steps, recipe.training.seed, recipe.training.device) == (6, 3, "auto")
    assert (recipe.training.beta2, recipe.name) == (0.99, "shakespeare-char-cpu")


def test_a_file_of_ones_own_is_named_after_itself(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text("[model]\nn_layer = 2\n[training]\nsteps = 9\n")
    recipe = read_recipe(str(path), ["model.n_layer=3"])
    assert (recipe.name, recipe.model.get("n_layer"), recipe.training.steps) == ("small", 3, 9)
    path.write_text('name = "mine"\n')
    assert read_recipe(str(path)).name == "mine"


def test_mistakes_are_value_errors_too():
    """A Python caller may catch either."""
    with pytest.raises(ValueError, match=r"training\.steps=0 is too small"):
        read_recipe(None, ["training.steps=0"])
    with pytest.raises(UsageError, match="did you mean n_layer"):
        read_recipe(None, ["model.n_layers=1"])


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        *[("digits", setting) for setting in ("validation_fraction=0.2", "order=random", "max_tokens=9")],
        *[("sentiment", setting) for setting in ("text_field=body", "document_mask=true")],
        ("word-vectors", "order=random"),
        ("shakespeare-fast", "max_examples=9"),
    ],
)
def test_a_data_key_that_the_task_does_not_read_is_refused_unless_it_is_the_default(recipe, setting):
    key = setting.partition("=")[0]
    with pytest.raises(UsageError, match=rf"^data\.{key} is not read by task\.kind=\w+ \(source, .*leave it out$"):
        read_recipe(recipe, [f"data.{setting}"])
    if (default := getattr(Recipe().data, key)) is not None:
        read_recipe(recipe, [f"data.{key}={default}"])


def test_special_tokens_are_read_by_a_tokenizer_that_is_learned_from_a_text(tmp_path):
    (tmp_path / "my.txt").write_text("to be or not to be\n" * 40)
    specials = ["<|endoftext|>", "<a>"]
    words = [f"data.source={tmp_path / 'my.txt'}", f"tokenizer.specials={specials}", "tokenizer.kind=bytes"]
    task, _ = open_task(read_recipe(None, words))
    assert task.tokenizer.special_tokens == {"<|endoftext|>": 256, "<a>": 257}
    for changed, message in (
        ([*words, "task.kind=sft"], "tokenizer.specials is not read by task.kind=sft"),
        (words[:2], r"tokenizer.specials belongs to a tokenizer that is learned; add tokenizer\.kind=bpe"),
    ):
        with pytest.raises(UsageError, match=message):
            read_recipe(None, changed)
    with pytest.raises(UsageError, match="takes no special tokens"):
        open_task(read_recipe(None, [*words[:2], "tokenizer.kind=gpt2"]))
