"""Training that the page starts: forms, plans, one child process that is paused, stopped, resumed, and refusals."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from fastapi.testclient import TestClient
from patience import PATIENCE

from glassformer.recipes import builtin_recipes
from glassformer.recipes.form import recipe_form, words_of
from glassformer.recipes.reading import read_recipe
from glassformer.server.app import create_app, open_model
from glassformer.server.runs import Runs
from glassformer.training import RunFolder

TINY = {
    "model.n_layer": 1, "model.n_head": 1, "model.head_width": 8, "model.n_embd": 8, "model.n_hidden": 8,
    "model.block_size": 8, "training.batch_size": 2, "training.eval_every": 0, "training.eval_batches": 1,
}  # fmt: skip


@pytest.fixture
def client(tmp_path):
    def open_checkpoint(folder: str, name: str) -> Any:
        return open_model(folder, name, device="cpu", dtype="fp32")[name]

    app = create_app({}, runs=Runs([tmp_path]), open_checkpoint=open_checkpoint, train_in=tmp_path)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def wait_for(what: Any) -> Any:
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def state(client: TestClient) -> str | None:
    return client.get("/api/train").json()["state"]


def steps(folder: Path) -> int:
    return len(RunFolder(folder).read_metrics())


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_every_recipe_has_a_form_whose_values_are_its_own(client, name):
    if name not in {one["name"] for one in client.get("/api/recipes").json()["recipes"]}:
        with pytest.raises(Exception, match="several stages"):
            recipe_form(name)
        return
    form = client.get(f"/api/recipes/{name}").json()["form"]
    r = read_recipe(name)
    assert form["first"][0] == "training.steps" and not {"training.start_from", "training.device"} & set(
        form["properties"]
    )
    for key in form["first"]:
        if (value := r.value(key)) is not None:
            assert form["properties"][key]["default"] == value
    given = {key: part["default"] for key, part in form["properties"].items() if key in form["first"]}
    assert words_of(name, {key: value for key, value in given.items() if value is not None})


def test_the_plan_is_the_one_of_the_command(client):
    from glassformer.recipes.plan import plan

    (table, *_) = client.post("/api/plan", json={"recipe": "shakespeare-fast", "settings": TINY}).json()["figures"]
    expected = plan("shakespeare-fast", words_of("shakespeare-fast", TINY), probing=False)
    assert table["rows"][0][1]["text"] == f"{expected.parameters:,}"
    other = client.post("/api/plan", json={"recipe": "digits", "settings": {}}).json()["figures"]
    assert [figure["kind"] for figure in other] == ["note"]


def test_a_run_is_started_paused_stopped_resumed_and_its_model_is_served(client, tmp_path):
    body = {"recipe": "shakespeare-fast", "settings": {**TINY, "training.steps": 100_000}}
    name = client.post("/api/train", json=body).json()["run"]
    assert name == "shakespeare-fast-1"
    run = tmp_path / name
    wait_for(lambda: run.exists() and steps(run) > 5)
    busy = client.post("/api/train", json=body)
    assert busy.status_code == 409 and name in busy.json()["error"]["message"]
    assert client.post(f"/api/train/{name}/pause", json={}).json()["state"] == "paused"
    wait_for(lambda: steps(run) == (time.sleep(0.3) or steps(run)))  # it stands still
    assert state(client) == "paused"
    assert client.post(f"/api/train/{name}/proceed", json={}).json()["state"] == "running"
    before = steps(run)
    wait_for(lambda: steps(run) > before)
    client.post(f"/api/train/{name}/stop", json={})
    wait_for(lambda: state(client) is None)
    assert client.get("/api/train").json()["error"] is None
    saved = steps(run)
    assert saved < 100_000 and any((run / "checkpoints").glob("step-*"))
    assert client.get("/api/models").json()["models"] == []
    assert client.post(f"/api/train/{name}/resume", json={}).status_code == 200
    wait_for(lambda: steps(run) > saved)
    client.post(f"/api/train/{name}/stop", json={})
    wait_for(lambda: state(client) is None)


def test_the_model_of_a_run_that_ends_is_served(client):
    body = {"recipe": "shakespeare-fast", "settings": {**TINY, "training.steps": 3}}
    name = client.post("/api/train", json=body).json()["run"]
    wait_for(lambda: client.get("/api/models").json()["models"])
    assert [model["name"] for model in client.get("/api/models").json()["models"]] == [name]
    answer = client.post("/v1/completions", json={"model": name, "prompt": "To be", "max_tokens": 2})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("/etc/passwd", {}, ["/etc/passwd", "no recipe"]),
        ("shakespeare-fats", {}, ["shakespeare-fast"]),
        ("shakespeare-fast", {"data.source": "/etc/passwd"}, ["data.source", "not set here"]),
        ("shakespeare-fast", {"training.start_from": "/etc"}, ["start_from", "not set here"]),
        ("shakespeare-fast", {"training.steps": "5 --out /etc"}, ["training.steps", "number"]),
        ("shakespeare-fast", {"training.steps": -1}, ["training.steps=-1", "1 or more"]),
    ],
)
def test_what_is_not_a_setting_of_the_form_is_refused(client, tmp_path, recipe, settings, words):
    for path in ("/api/plan", "/api/train"):
        answer = client.post(path, json={"recipe": recipe, "settings": settings})
        assert answer.status_code == 400, answer.text
        assert all(word in answer.json()["error"]["message"] for word in words), answer.text
    assert not list(tmp_path.iterdir())


def test_only_pages_of_this_server_train_and_only_where_it_is_allowed(client, tmp_path):
    body = {"recipe": "shakespeare-fast", "settings": TINY}
    other = client.post("/api/train", json=body, headers={"Origin": "http://example.org"})
    assert other.status_code == 403 and "a page of this server" in other.json()["error"]["message"]
    with TestClient(create_app({}), base_url="http://localhost") as closed:
        assert closed.get("/api/train").json() is None and closed.get("/api/recipes").json()["trains"] is False
        answer = closed.post("/api/train", json=body)
        assert answer.status_code == 403 and "--train" in json.dumps(answer.json())
    assert client.post("/api/train/none/pause", json={}).status_code == 409
    assert client.post("/api/train/none/resume", json={}).status_code in (400, 404, 500)
    assert not list(tmp_path.iterdir())
