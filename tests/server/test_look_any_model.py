"""Models that read no text, on the server: looked into with a file that is sent, and with none of this machine."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("PIL", reason="needs the extra images")


from PIL import Image

from glassformer.figures import to_json
from glassformer.inspection.look import open_subject, show
from glassformer.recipes import train
from glassformer.server.app import create_app, open_models

SMALL = ["model.n_layer=1", "model.n_embd=16", "model.n_head=2", "training.steps=2", "training.eval_every=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    train("digits", SMALL, out=runs / "digits")
    train("mixed-set", SMALL, out=runs / "sets")
    train("cartpole", SMALL, out=runs / "cartpole")
    return runs


@pytest.fixture(scope="module")
def client(folder):
    from fastapi.testclient import TestClient

    models = open_models([str(folder)], device="cpu", dtype="fp32")
    with TestClient(create_app(models), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "seven.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    return path


def look(client, view: str, model: str, file: bytes | str | None = None, **options):
    body = {"model": model, "options": options}
    if file is not None:
        body["file"] = file if isinstance(file, str) else base64.b64encode(file).decode()
    return client.post(f"/api/look/{view}", json=body)


def test_they_are_listed_with_what_they_read(client):
    models = {model["name"]: model for model in client.get("/api/models").json()["models"]}
    assert {name: (m["reads"], m["writes"], m["vocab_size"]) for name, m in models.items()} == {
        "cartpole": ("trajectory", False, None),
        "digits": ("patches", False, None),
        "sets": ("set", False, None),
    }


def test_a_picture_is_sent_and_gives_the_figures_of_the_command(client, folder, picture):
    answer = look(client, "attention", "digits", picture.read_bytes(), text="seven.png", layer=0, head=1)
    subject = open_subject(str(folder / "digits"))
    expected = to_json(show("attention", subject, {"text": str(picture), "layer": 0, "head": 1}).figures())
    assert answer.status_code == 200
    assert answer.json()["figures"] == json.loads(json.dumps(expected))


def test_an_episode_by_the_name_of_a_set_and_a_record(client):
    assert look(client, "attention", "cartpole", text="cartpole-mixed:0:5").status_code == 200
    assert look(client, "residual", "sets", text='{"plus": 3, "word": "few"}').status_code == 200


@pytest.mark.parametrize("view", ["parameters", "tensors"])
@pytest.mark.parametrize("model", ["digits", "sets", "cartpole"])
def test_views_without_a_text_need_no_file(client, view, model):
    assert look(client, view, model).status_code == 200


def test_no_file_of_this_machine_is_read_by_its_name(client, picture):
    for model in ("digits", "cartpole"):
        answer = look(client, "attention", model, text=str(picture))
        assert answer.status_code == 400 and "send a file" in answer.json()["error"]["message"]
    record = json.dumps({"picture": str(picture), "plus": 1})
    answer = look(client, "attention", "sets", text=record)
    assert answer.status_code == 400 and "cannot name" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "seven.png"),
        (b"no picture", "seven.png"),
        ("*", "no base64"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "seven.png"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(client, file, words):
    answer = look(client, "attention", "digits", file, text="../../seven.png")
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and words in message and "/tmp" not in message and "\n" not in message


def test_a_file_for_a_model_that_reads_none_is_refused(client):
    answer = look(client, "attention", "sets", b"x", text='{"plus": 3}')
    assert answer.status_code == 400 and "leave it out" in answer.json()["error"]["message"]


def test_they_write_nothing_and_give_no_vectors(client):
    answer = client.post("/v1/completions", json={"model": "digits", "prompt": "a"})
    assert answer.status_code == 400 and "/api/look/VIEW" in answer.json()["error"]["message"]
    answer = client.post("/v1/embeddings", json={"model": "digits", "input": "a"})
    assert answer.status_code == 400 and "gives no vectors" in answer.json()["error"]["message"]
    for path, body in (("tokenize", {"model": "digits", "text": "a"}), ("vocabulary?model=digits", None)):
        answer = client.post(f"/api/{path}", json=body) if body else client.get(f"/api/{path}")
        assert answer.status_code == 400 and "no tokens" in answer.json()["error"]["message"]


def test_an_upload_leaves_no_file(client, picture, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    assert look(client, "attention", "digits", picture.read_bytes(), text="seven.png").status_code == 200
    assert not list((tmp_path / "own").iterdir())


# ---- models that read files and write text, and models of both ----


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """A server with a Whisper, a model of captions and one of images and texts; and their folder."""
    pytest.importorskip("soundfile", reason="needs the package soundfile")
    from every_use import USES
    from fastapi.testclient import TestClient

    place = tmp_path_factory.mktemp("more")
    for name, use in (("whisper", "Whisper"), ("captions", "captions"), ("pairs", "images and texts")):
        USES[use].save(place / name)
    models = open_models([str(model) for model in place.iterdir()], device="cpu", dtype="fp32")
    with TestClient(create_app(models), base_url="http://localhost") as client:
        yield client, place


@pytest.mark.parametrize(
    ("view", "model", "option"),
    [
        ("speech", "whisper", "sound"),
        ("attention", "whisper", "text"),
        ("image-attention", "captions", "text"),
        ("lens", "captions", "text"),
        ("attention", "pairs", "text"),
    ],
)
def test_a_file_that_is_sent_gives_the_figures_of_the_command(more, view, model, option, tmp_path):
    from every_use import colours, sound

    client, place = more
    path = sound(tmp_path / "a") if model == "whisper" else colours(tmp_path / "a")
    answer = look(client, view, model, Path(path).read_bytes(), **{option: Path(path).name})
    expected = to_json(show(view, open_subject(str(place / model)), {option: path}).figures())
    assert answer.status_code == 200, answer.json()
    assert answer.json()["figures"] == json.loads(json.dumps(expected))


def test_they_open_nothing_by_its_name(more, tmp_path):
    from every_use import colours, sound

    client, _ = more
    for view, model, options in (
        ("speech", "whisper", {"sound": sound(tmp_path / "a")}),
        ("attention", "whisper", {"text": sound(tmp_path / "a")}),
        ("attention", "captions", {"text": colours(tmp_path / "a")}),
        ("attention", "pairs", {"text": colours(tmp_path / "a")}),
    ):
        answer = look(client, view, model, **options)
        assert answer.status_code == 400 and "send a file" in answer.json()["error"]["message"], (view, model)


def test_a_text_for_a_model_that_could_read_a_file(more):
    client, _ = more
    assert look(client, "attention", "pairs", text="ABE").status_code == 200
    assert look(client, "tokens", "captions", text="ABE").status_code == 200
    refused = look(client, "tokens", "captions", b"x", text="ABE")
    assert refused.status_code == 400 and "leave it out" in refused.json()["error"]["message"]
    views = {view["name"]: view for view in client.get("/api/views?model=pairs").json()["views"]}
    assert views["attention"]["file"] and not views["tokens"]["file"] and views["attention"]["reason"] is None
