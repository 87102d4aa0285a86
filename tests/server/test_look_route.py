"""`GET /api/views` and `POST /api/look/VIEW`: every view of the command line, as figures, and a view of one's own."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import TEXT, ask

from glassformer.figures import Note, to_json
from glassformer.inspection import View, look
from glassformer.server.inspect_schemas import MAX_VIEW_INPUT
from glassformer.views import VIEWS, ViewEntry

OPTIONS = {
    "neighbours": {"word": "a"},
    "analogy": {"a": "a", "b": "c", "c": "d", "expected": "e"},
    "direction": {"pairs": ["a:c", ["d", "e"]], "along": ["r"]},
    "components": {"words": ["a", "c", "d", "e"]},
    "parameters": {},
    "vocabulary": {},
    "tensors": {"pattern": "blocks.0.*"},
    "induction": {"length": 4},
    "promoters": {"token": "q"},
    "steering": {"text": "the", "pairs": ["the fox=>a fox", "dog=>the dog"], "tokens": 4},
    "links": {"text": "the fox", "reader": "fox", "read": "the"},
    "patching": {"text": "the fox", "other": "the dog", "token": "q", "against": "b"},
    "context": {"word": "fox", "texts": ["the fox", "a fox"]},
    "tokenizers": {"text": "the fox", "corpus": [TEXT], "others": ["characters", "bytes", "bpe"]},
    "neurons": {"corpus": [TEXT], "layer": 1},
}
OTHERS = {"diffusion", "image-attention", "positions", "speech"}  # of masks, images, learned positions, sound


def figures(url: str, view: str, model: str = "base", **options) -> list[dict]:
    status, body = ask(url, f"/api/look/{view}", {"model": model, "options": options})
    assert status == 200, body
    return json.loads(body)["figures"]


@pytest.mark.parametrize("view", sorted(VIEWS.keys() - OTHERS))
def test_every_view_gives_the_figures_of_the_function(url, models, view):
    options = OPTIONS.get(view, {"text": "the fox"})
    expected = to_json(look(view, *models["base"], **options).figures())
    assert figures(url, view, **options) == json.loads(json.dumps(expected, allow_nan=False))


def test_the_list_has_a_schema_for_every_option(url):
    views = {view["name"]: view for view in json.loads(ask(url, "/api/views")[1])["views"]}
    assert list(views) == list(VIEWS)
    lens = views["lens"]["options"]
    assert lens["required"] == ["text"] and lens["additionalProperties"] is False
    top = lens["properties"]["top"]
    assert (top["type"], top["minimum"], top["default"]) == ("integer", 1, 5) and top["description"]


def test_an_encoder_is_looked_into_while_it_embeds(url):
    """Taps record every forward pass, so embeddings of other texts must wait."""
    expected = figures(url, "attention", "vectors", text="the fox")
    with ThreadPoolExecutor(3) as pool:
        pool.map(lambda _: ask(url, "/v1/embeddings", {"model": "vectors", "input": [TEXT] * 40}), range(3))
        assert all(figures(url, "attention", "vectors", text="the fox") == expected for _ in range(5))


def test_models_that_are_served_are_compared_and_no_others(url):
    assert figures(url, "compare", text="the", others=["chat"])[1]["columns"][2]["name"] == "chat"
    status, body = ask(url, "/api/look/compare", {"model": "base", "options": {"text": "the", "others": ["/etc"]}})
    assert status == 404 and "/etc" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("view", "options", "status", "words"),
    [
        ("lense", {"text": "a"}, 404, ["lense", "lens"]),
        ("lens", {"text": "a", "top": 0}, 400, ["top=0", "1 or more"]),
        ("lens", {"text": "a", "tpo": 1}, 400, ["tpo", "top"]),
        ("lens", {}, 400, ["text", "missing"]),
        ("lens", {"text": TEXT * 40}, 400, ["200"]),
        ("lens", {"text": "a" * MAX_VIEW_INPUT}, 400, [f"{MAX_VIEW_INPUT:,}"]),
        ("attention", {"text": "a", "layer": 9}, 400, ["layer=9"]),
        ("attribution", {"text": "a", "check": 1000}, 400, ["check=1000", "64 or less"]),
        ("compare", {"text": "a", "temperature": [1.0] * 99}, 400, ["temperature", "16"]),
    ],
)
def test_a_mistake_is_reported_and_the_next_request_is_served(url, view, options, status, words):
    code, body = ask(url, f"/api/look/{view}", {"model": "base", "options": options})
    message = json.loads(body)["error"]["message"]
    assert code == status and all(word in message for word in words), message
    assert ask(url, "/api/logits", {"ids": [1], "positions": [0]})[0] == 200


def test_an_own_view_has_a_route(url, monkeypatch):
    class Shout(View):
        def figures(self):
            return [Note("HEY")]

    def shout(model, text: str):
        """A text in capitals."""
        return Shout()

    monkeypatch.setitem(VIEWS, "shout", ViewEntry(shout, "A text in capitals."))
    (note,) = figures(url, "shout", text="hey")
    assert (note["kind"], note["text"]) == ("note", "HEY")
    assert json.loads(ask(url, "/api/views")[1])["views"][-1]["name"] == "shout"
