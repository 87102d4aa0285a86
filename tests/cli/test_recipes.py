"""`glassformer recipes list|show`, and what every built-in recipe promises at its head."""

from __future__ import annotations

import json
import re

import pytest

from glassformer.recipes import builtin_recipes, read_recipe
from glassformer.recipes.stages import has_stages, read_stages


def test_list(glassformer):
    result = glassformer("recipes", "list")
    assert (result.code, result.err) == (0, "") and max(map(len, result.out.splitlines())) <= 80
    names = [line.split()[0] for line in result.out.splitlines() if not line.startswith(" ")]
    assert names == sorted(builtin_recipes()) and {"shakespeare-char", "shakespeare-char-cpu", "gpt2-124m"} <= set(
        names
    )
    shown = json.loads(glassformer("recipes", "list", "--json").out)
    assert [recipe["name"] for recipe in shown] == names
    words = " ".join(result.out.split())
    assert all(" ".join([recipe["name"], recipe["what"]]) in words for recipe in shown)


@pytest.mark.parametrize("name", builtin_recipes())
def test_show_prints_the_file_and_the_file_states_its_purpose(glassformer, name):
    result = glassformer("recipes", "show", name)
    assert result.out == builtin_recipes()[name].read_text() and result.code == 0
    head = result.out.partition("\n[")[0]
    assert re.search(rf"^#   glassformer train {name}\b", head, re.M), "the command"
    assert re.search(r"^# hardware  ", head, re.M) and re.search(r"^# expect    ", head, re.M)


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_is_one(name):
    stages = read_stages(name) if has_stages(name) else None
    found = [read_recipe(name)] if stages is None else [stages.recipe(stage) for stage in stages.tables]
    assert name == (found[0] if stages is None else stages).name
    assert all(recipe.training.steps and recipe.data.source for recipe in found)
