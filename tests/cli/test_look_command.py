"""`glassformer look` as a person types it: what it draws fits 80 columns, and its JSON is what the function returns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from play import PLAY
from toys import shaken

from glassformer import inspection
from glassformer.hub import load, save
from glassformer.models import Encoder, EncoderConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.processors.tokenizers.special_tokens import MASKED_SPECIALS
from glassformer.recipes.opening import texts_for
from glassformer.recipes.recipe_file import recipe_of

TEXT = "Citizen:"


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A folder with an encoder that fills masks."""
    folder = tmp_path_factory.mktemp("encoder") / "masks"
    tokenizer = build_tokenizer("bpe", [PLAY], vocab_size=290, specials=MASKED_SPECIALS)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 12, "n_hidden": 23, "block_size": 19, "token_head": "vocabulary"}
    save(folder, shaken(Encoder(EncoderConfig.make(vocab_size=tokenizer.vocab_size, **shape))).eval(), tokenizer)
    return folder


ALL = {
    "tokens": ([TEXT], lambda m, t: inspection.tokens(t, TEXT, chunks=8)),
    "neighbours": (["a"], lambda m, t: inspection.neighbours(inspection.vectors_of(m, t), "a")),
    "analogy": (["a", "c", "d", "e"], lambda m, t: inspection.analogy(inspection.vectors_of(m, t), *"acde")),
    "direction": (
        ["a:c", "d:e", "--along", "r"],
        lambda m, t: inspection.direction(inspection.vectors_of(m, t), [("a", "c"), ("d", "e")], along=["r"]),
    ),
    "components": (list("acde"), lambda m, t: inspection.pca(inspection.vectors_of(m, t), list("acde"))),
    "parameters": ([], lambda m, t: inspection.parameters(m)),
    "tensors": (["blocks.0.*"], lambda m, t: inspection.tensors(m, "blocks.0.*")),
    "next": ([TEXT, "--top-k", "3"], lambda m, t: inspection.next_token(m, t, TEXT, top_k=3)),
    "surprise": ([TEXT], lambda m, t: inspection.surprise(m, t, TEXT)),
    "attention": ([TEXT], lambda m, t: inspection.attention(m, t, TEXT)),
    "induction": (["--length", "4"], lambda m, t: inspection.induction_scores(m, t, length=4)),
    "attention-walkthrough": (
        [TEXT, "--head", "1"],
        lambda m, t: inspection.attention_walkthrough(m, t, TEXT, layer=0, head=1),
    ),
    "context": (["hear", "hear me", "me hear"], lambda m, t: inspection.context(m, t, "hear", ["hear me", "me hear"])),
    "residual": ([TEXT], lambda m, t: inspection.residual(m, t, TEXT)),
    "lens": ([TEXT, "--pin", "e"], lambda m, t: inspection.lens(m, t, TEXT, pin="e")),
    "attribution": ([TEXT], lambda m, t: inspection.attribution(m, t, TEXT)),
}


@pytest.mark.parametrize("command", ALL)
def test_what_is_drawn_fits_and_the_json_is_the_functions(glassformer, finished, command):
    words, function = ALL[command]
    drawn = glassformer("look", command, finished, *words)
    assert (drawn.code, drawn.err) == (0, "") and drawn.out.strip()
    assert max(map(len, drawn.out.splitlines())) <= 80
    shown = glassformer("look", command, finished, *words, "--json")
    assert shown.code == 0 and json.loads(shown.out) == json.loads(json.dumps(function(*load(finished)).to_dict()))


def test_temperatures_and_models_beside_each_other(glassformer, finished):
    shown = json.loads(glassformer("look", "compare", finished, TEXT, "--json").out)
    assert shown["names"] == ["T=0.5", "T=1", "T=2"]
    both = json.loads(glassformer("look", "compare", finished, TEXT, "--with", finished, "--json").out)
    assert both["names"] == [finished.name, finished.name + "'"]


def test_neurons_of_a_text_of_ones_own(glassformer, finished, tmp_path):
    (tmp_path / "own.txt").write_text(PLAY[:600])
    for words in ((), ("--neuron", "3")):
        shown = glassformer("look", "neurons", finished, "--data", tmp_path / "own.txt", *words)
        assert (shown.code, shown.err) == (0, "") and max(map(len, shown.out.splitlines())) <= 80


def test_neurons_read_the_run_s_own_text(glassformer, finished, tmp_path):
    """For a run, its model folder or a checkpoint; without a run: Tiny Shakespeare."""
    own = recipe_of(finished).data.source
    wanted = glassformer("look", "neurons", finished, "--data", own, "--json").out
    for model in (finished, finished / "model", sorted((finished / "checkpoints").iterdir())[-1]):
        assert texts_for(model, None, 100) == [Path(own).read_text(encoding="utf-8")[:100]]
    assert glassformer("look", "neurons", finished, "--json").out == wanted
    shutil.copytree(finished / "model", tmp_path / "model")
    assert texts_for(tmp_path / "model", None, 13) == ["First Citizen"]


def test_a_run_whose_text_is_gone_asks_for_another(glassformer, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "moved")
    recipe = tmp_path / "moved" / "recipe.toml"
    own = recipe_of(finished).data.source
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(own, "gone.txt"), encoding="utf-8")
    shown = glassformer("look", "neurons", "moved")
    assert (shown.code, shown.out, shown.err.count("\n")) == (1, "", 1)
    assert "gone.txt: no such file" in shown.err and "give another text with --data" in shown.err


def test_a_size_is_counted_by_its_name(glassformer):
    shown = glassformer("look", "parameters", "gpt3")
    assert shown.code == 0 and "175,181,291,520" in shown.out and "27,938" in shown.out


def test_a_single_tensor_is_drawn(glassformer, finished):
    shown = glassformer("look", "tensors", finished, "blocks.0.attention.out.weight")
    assert shown.code == 0 and "blocks.0.attention.out.weight" in shown.out


def test_a_page_is_written_and_nothing_printed(glassformer, finished, tmp_path):
    shown = glassformer("look", "next", finished, TEXT, "--html", tmp_path / "next.html")
    assert (shown.code, shown.out) == (0, "") and "next.html" in shown.err
    assert "data-value" in (tmp_path / "next.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        *([view, "MODEL", "Speak, <mask>"] for view in ("attention", "step", "residual", "lens", "attribution")),
        ["tokens", "MODEL", "Speak"],
        ["parameters", "MODEL"],
        ["tensors", "MODEL"],
    ],
)
def test_views_of_an_encoder(glassformer, encoder, words):
    shown = glassformer("look", *(encoder if word == "MODEL" else word for word in words))
    assert (shown.code, shown.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        *(([view, "ENCODER", "Speak"], ["does not generate text"]) for view in ("next", "surprise", "compare")),
        (["neighbours", "RUN", "Citizen"], ["Citizen"]),
        (["direction", "RUN", "ed"], ["not a pair"]),
        (["attention", "RUN", TEXT, "--layer", "9"], ["layer=9"]),
        (["lens", "RUN", TEXT, "--pin", "ed"], ["ed"]),
        (["tensors", "RUN", "blocs.0"], ["blocs.0"]),
        (["next", "RUN", TEXT, "--top-p", "2"], ["top_p=2"]),
        (["next", "nowhere", TEXT], ["nowhere"]),
        (
            ["compare", "RUN", TEXT, "--with", "RUN", "--temperature", "1", "--temperature", "2"],
            ["compare the ones or the others"],
        ),
        (["tokens", TEXT], ["--tokenizer gpt2"]),
        (["tokens", "some/run", TEXT, "--tokenizer", "bytes"], ["some/run", "one of the two"]),
        (["tokens", TEXT, "--tokenizer", "characters"], ["characters", "made from a text", "gpt2"]),
        (["tokens", TEXT, "--tokenizer", "gtp2"], ["gtp2", "did you mean gpt2?"]),
    ],
)
def test_mistakes_are_one_line(glassformer, finished, encoder, words, names):
    shown = glassformer("look", *({"RUN": finished, "ENCODER": encoder}.get(word, word) for word in words))
    assert shown.code in (1, 2) and shown.err.count("\n") == 1
    assert all(name in shown.err for name in names), shown.err


def test_the_text_may_come_from_standard_input(glassformer, finished):
    typed = glassformer("look", "surprise", finished, TEXT)
    assert glassformer("look", "surprise", finished, "-", stdin=TEXT.encode()).out == typed.out


@pytest.mark.parametrize("name", ["bytes", "folder", "folder/tokenizer.json", "runs/finished"])
def test_tokens_with_a_tokenizer_alone(glassformer, finished, tmp_path, name):
    """A kind that is the same for every text, a folder, a file, a run."""
    bpe = build_tokenizer("bpe", [PLAY], vocab_size=300)
    bpe.save(tmp_path / "folder")
    expected = {"bytes": build_tokenizer("bytes", []), "runs/finished": load(finished)[1]}.get(name, bpe)
    shown = json.loads(glassformer("look", "tokens", "to be, or not", "--tokenizer", name, "--json").out)
    assert (shown["kind"], shown["ids"]) == (expected.kind, expected.encode("to be, or not"))
