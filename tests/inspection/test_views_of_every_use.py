"""Every view of the model of every use, as the command gives it: finite figures, or one line about what it needs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from every_use import USES

from glassformer.errors import GlassformerError
from glassformer.figures import to_json
from glassformer.inspection.look import Subject, open_subject, show
from glassformer.inspection.options import options_of
from glassformer.views import VIEWS

OWN = {
    "neighbours": {"word": "A"},
    "analogy": {"a": "A", "b": "B", "c": "C", "expected": "D"},
    "direction": {"pairs": ["A:B", "C:D"], "along": ["E"]},
    "components": {"words": list("ABCD")},
    "context": {"word": "FED", "texts": ["ABE FED A", "FED A"]},
    "links": {"reader": "1", "read": "0"},
    "patching": {"other": "BBE FED A", "token": 3, "against": 2},
    "neurons": {"corpus": "ABE FED A" * 9},
}


def numbers_in(data: Any):
    """Every number of JSON."""
    if isinstance(data, dict):
        data = [*data.values()]
    for each in data if isinstance(data, list) else [data]:
        if isinstance(each, float):
            yield each
        elif isinstance(each, (dict, list)):
            yield from numbers_in(each)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """By the name of a use: its model, opened as the command opens it, and what to look at."""
    found: dict[str, tuple[Subject, str]] = {}

    def of(name: str):
        if name not in found:
            folder: Path = tmp_path_factory.mktemp("use")
            use = USES[name]
            use.save(folder / "model")
            text = use.text if isinstance(use.text, str) else use.text(folder / "file")
            found[name] = open_subject(str(folder / "model")), text
        return found[name]

    return of


TEXTS = {"tokens", "neighbours", "analogy", "direction", "components", "context", "neurons"}
STREAM = {"parameters", "tensors", "attention", "attention-grid", "attention-walkthrough", "links", "residual"}
CHOICES = {"lens", "attribution", "ablation"}  # of tokens or classes
WRITTEN = {"next", "surprise", "compare", *CHOICES}
IMAGE = {"image-attention", *CHOICES}
WORDS = {"neighbours", "analogy", "direction", "components"}  # of a vocabulary with the letters A to E
ONE = {"rollout", "positions"}  # of one stack whose places have an order
DRAWN = {
    "text": TEXTS | STREAM | ONE | WRITTEN | {"induction", "patching"},
    "hidden tokens": TEXTS | STREAM | ONE | {"diffusion", "patching", *CHOICES},
    "diffusion": TEXTS | STREAM | ONE | {"diffusion", "patching", *CHOICES},
    "classes of texts": TEXTS | STREAM | ONE | CHOICES,
    "a number for a text": TEXTS | STREAM | ONE,
    "tags": TEXTS | STREAM | ONE,
    "reward": TEXTS | STREAM | ONE,
    "translation": (TEXTS - WORDS) | STREAM | WRITTEN | {"positions"},
    "images": STREAM | ONE | IMAGE,
    "images and texts": (TEXTS - {"tokens"}) | STREAM | ONE | IMAGE,  # tokens: by command, see below
    "captions": STREAM | WRITTEN | WORDS | {"tokens", "image-attention", "positions"},
    "images as tokens": (TEXTS - WORDS) | STREAM | ONE | WRITTEN | {"induction", "patching"},
    "text to image": (TEXTS - WORDS) | STREAM | ONE | WRITTEN | {"induction", "patching"},
    "one model for all": (TEXTS - WORDS) | STREAM | ONE | WRITTEN | {"induction"},
    "speech to text": STREAM | WRITTEN | WORDS | {"tokens", "speech", "positions"},
    "Whisper": STREAM | WRITTEN | WORDS | {"tokens", "speech", "positions"},
    "text to speech": {"parameters", "tensors", "positions"},  # glassformer say --html draws where it looks
    "decisions": STREAM | {"rollout"},
    "sets": STREAM | {"rollout", "lens", "ablation"},
    "a number for a set": STREAM | {"rollout"},
    "molecules": STREAM | {"rollout", "lens", "ablation"},
    "a number for a molecule": STREAM | {"rollout"},
    "linear functions": STREAM | ONE,
}
NEEDS = {
    "molecules": "rdkit",
    "a number for a molecule": "rdkit",
    "speech to text": "soundfile",
    "Whisper": "soundfile",
}


def test_every_use_is_in_the_table():
    assert DRAWN.keys() == USES.keys()


@pytest.mark.parametrize("name", USES)
def test_a_view_is_finite_or_says_what_it_needs(name, subjects):
    pytest.importorskip(NEEDS.get(name, "numpy"), reason=f"needs the package {NEEDS.get(name)}")
    subject, text = subjects(name)
    drawn = set()
    for view in VIEWS:
        fields = options_of(VIEWS[view].load()).model_fields
        options = {**OWN.get(view, {}), **{field: text for field in ("text", "sound") if field in fields}}
        try:
            figures = to_json(show(view, subject, options).figures())
        except GlassformerError as error:
            assert "\n" not in str(error) and len(str(error)) < 300, (view, error)
            continue
        drawn.add(view)
        assert figures and all(map(math.isfinite, numbers_in(json.loads(json.dumps(figures))))), view
    assert drawn & set().union(*DRAWN.values()) == DRAWN[name]  # other views are free to choose


def test_the_tokens_of_a_model_of_images_or_sound_are_those_that_it_writes(glassformer, tmp_path):
    for name, n in (("captions", 9), ("speech to text", 9), ("images and texts", 9), ("images", None)):
        USES[name].save(tmp_path / name)
        shown = glassformer("look", "tokens", tmp_path / name, "ABE FED A", "--json")
        if n is None:
            assert shown.code == 2 and "reads no text" in shown.err and "Traceback" not in shown.err
        else:
            assert json.loads(shown.out)["n_tokens"] == n, name


def test_the_other_side_of_a_model_of_images_and_texts(subjects):
    """A text is looked at in the encoder of texts, a picture in that of images."""
    subject, picture = subjects("images and texts")
    assert len(show("attention", subject, {"text": "ABE"}).queries) == 3
    assert show("attention", subject, {"text": picture}).queries[0] == "<class>"
