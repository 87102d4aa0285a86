"""The registry of views: every entry, options from signatures, and a view of one's own as a plug-in."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field
from stacks import FAMILIES, TOKENIZER, asked
from toy_letters import TEXT, letters
from toys import toy_model

from glassformer import inspection, plugins, views
from glassformer.errors import UsageError
from glassformer.inspection import look
from glassformer.inspection.look import Subject, show
from glassformer.inspection.options import check_options, options_of
from glassformer.view_options import inputs_of, parameters_of
from glassformer.views import OLD_NAMES, VIEWS, ViewEntry

LONG = "ABE FED A" * 9
PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
MY_VIEWS = re.findall(r"```python\n(# my_views.py.*?)```", PAGE, flags=re.S)[0]


@pytest.mark.parametrize("name", VIEWS)
def test_every_entry_is_complete(name: str):
    """A summary that fits the help, described options, examples of its own command, a schema for the web page."""
    function = VIEWS[name].load()
    assert len(VIEWS[name].summary) <= 52 and function.__doc__ and inputs_of(function)
    assert function.examples and all(example.startswith(f"glassformer look {name} ") for example in function.examples)
    schema = options_of(function).model_json_schema()
    for option, text in schema["properties"].items():
        assert text.get("description") or option in ("a", "b", "c", "word"), option
    assert json.dumps(schema)


def test_a_view_by_its_name_is_the_function():
    model, tokenizer = toy_model(), letters()
    by_name = look("attention", model, tokenizer, TEXT, layer=1)
    assert by_name.to_dict() == inspection.attention(model, tokenizer, TEXT, layer=1).to_dict()
    assert look("parameters", model).total == inspection.parameters(model).total
    assert look("neighbours", model, tokenizer, "b", top=3).words[0]
    assert look("step", model, tokenizer, TEXT).head == 0  # an old name
    assert look("direction", model, tokenizer, ["a:b", ("t", "b")]).pairs == [("a", "b"), ("t", "b")]
    assert look("compare", model, tokenizer, TEXT, temperature=[0.5]).names == ["T=0.5"]
    assert look("neurons", model, tokenizer, iter([TEXT, TEXT]), top=1).n_texts == 2


OPTIONS = {
    "neighbours": {"word": "A"},
    "analogy": {"a": "A", "b": "B", "c": "C", "expected": "D"},
    "direction": {"pairs": ["A:B", "C:D"], "along": ["E"]},
    "components": {"words": list("ABCD")},
    "parameters": {},
    "vocabulary": {},
    "tensors": {},
    "induction": {},
    "links": {"text": LONG[:9], "reader": "5", "read": "2"},
    "patching": {"text": LONG[:9], "other": "B" + LONG[1:9], "token": 3, "against": 5},
    "speech": {"sound": "none.wav"},
    "context": {"word": "FED", "texts": ["ABE FED A", "FED A"]},
    "neurons": {"corpus": LONG},
    "tokenizers": {"text": LONG[:9], "corpus": LONG, "others": ["characters", "bytes", "bpe"]},
    "promoters": {"token": "A"},
    "steering": {"text": LONG[:5], "pairs": ["AB=>CD", "A=>D"], "tokens": 4},
    "positions": {},
}
DRAWN = {"classic": 29, "Gemma": 28, "gpt-oss": 26, "encoder": 25, "2017": 28, "modern pair": 24, "T5": 24}


@pytest.mark.parametrize("family", DRAWN)
def test_every_view_fits_80_columns_and_is_plain_data_and_a_page(family: str):
    """Of a model that a view does not apply to, it says so."""
    model, drawn = FAMILIES[family](), 0
    for name in VIEWS:
        options = OPTIONS.get(name, {"text": LONG[:9]})
        options |= asked(model) if "target" in options_of(VIEWS[name].load()).model_fields else {}
        try:
            found = show(name, Subject(family, model, TOKENIZER), options)
        except UsageError:
            continue
        drawn += 1
        assert max(map(len, str(found).splitlines())) <= 80, name
        json.dumps(found.to_dict(), allow_nan=False)
        assert "<table" in found.to_html() or "<svg" in found.to_html(), name
    assert drawn == DRAWN[family]


def test_a_view_checks_its_options_also_when_it_is_called_itself():
    with pytest.raises(UsageError, match="top=0"):
        inspection.lens(toy_model(), letters(), TEXT, top=0)
    with pytest.raises(UsageError, match=r"tpo.*top"):
        inspection.lens(toy_model(), letters(), TEXT, tpo=3)
    assert inspection.lens(model=toy_model(), tokenizer=letters(), text=TEXT).position == len(TEXT) - 1


@pytest.mark.parametrize("name", VIEWS)
def test_help_reads_from_the_source_what_the_function_declares(name: str):
    declared, function = VIEWS[name].declaration(), VIEWS[name].load()
    assert parameters_of(declared) == parameters_of(function) and inputs_of(declared) == inputs_of(function)
    assert (declared.__doc__, declared.examples) == (inspect.getdoc(function), function.examples)
    assert declared.__module__ == parameters_of.__module__


def test_a_signature_that_cannot_be_read_from_the_source_is_read_from_the_module(plugin):
    sys.path.insert(0, str(Path.cwd()))
    function = ViewEntry(f"{plugin}:largest", "").declaration()  # its annotations are pydantic's
    assert function.__module__ == plugin and [p.name for p in parameters_of(function)] == ["text", "top"]


def test_defaults_are_those_of_the_signature():
    def view(model, text: str, *, n: Annotated[int, Field(ge=0)] = 3, words: list[str] = []): ...  # noqa: B006

    assert check_options(view, {"text": "a"}) == {"text": "a", "n": 3, "words": []}
    assert check_options(view, {"text": "a", "n": "4"})["n"] == 4


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A folder with the my_views.py of docs/extending.md, as the current one; nothing of it is left behind."""
    (tmp_path / "my_views.py").write_text(MY_VIEWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield "my_views"
    VIEWS.pop("largest", None)
    sys.modules.pop("my_views", None)
    plugins._asked[:] = [name for name in plugins._asked if name != "my_views"]


def test_a_view_of_ones_own_has_its_command(glassformer, finished, plugin):
    def call(*words):
        return glassformer("--plugin", plugin, "look", *words)

    assert "largest" not in glassformer("look", "--help").out
    assert "The largest channels of the last vector." in call("--help").out
    shown = call("largest", "--help").out
    assert "--top N" in shown and "How many." in shown and "default: 5; x>=1" in shown
    drawn = call("largest", finished, "Citizen:")
    assert (drawn.code, drawn.err) == (0, "") and "Largest channels" in drawn.out
    as_json = json.loads(call("largest", finished, "Citizen:", "--top", 3, "--json").out)
    assert list(as_json) == ["channels", "values"] and len(as_json["values"]) == 3
    assert call("largest", finished, "Citizen:", "--html", "page.html").code == 0
    assert "Largest channels" in Path("page.html").read_text()
    wrong = call("largest", finished, "Citizen:", "--top", 0)
    assert wrong.code == 2 and "--top" in wrong.err and "glassformer look largest --help" in wrong.err


def test_old_names_of_commands_still_work(glassformer, finished):
    for old, new in OLD_NAMES.items():
        assert glassformer("look", old, finished, "Citizen").out == glassformer("look", new, finished, "Citizen").out
        assert old not in glassformer("look", "--help").out.split()
    assert views.find("step") is VIEWS["attention-walkthrough"]
