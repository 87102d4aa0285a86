"""`/api/runs` and checkpoints as models: what a run folder holds, as it grows, and nothing outside the folders."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")

from resolving import TINY
from served import ask, running

import glassformer as gf
from glassformer.figures import to_json
from glassformer.recipes import train
from glassformer.server import ModelHandle
from glassformer.server.runs import MOST_OPEN, Runs, ServedModels, checkpoints_of
from glassformer.training import RunFolder
from glassformer.training.report_figures import score_chart
from glassformer.training.run_history import RunHistory

STEPS = ["training.steps=10", "training.checkpoint_every=2", "training.keep_checkpoints=9", "training.eval_every=5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """runs/one, with checkpoints at 2, 4, ... 10."""
    from play import PLAY

    runs = tmp_path_factory.mktemp("runs")
    text = runs / "play.txt"
    text.write_text(PLAY, encoding="utf-8")
    train(None, [*TINY, *STEPS], data=str(text), out=runs / "one")
    return runs


def open_checkpoint(folder: str, name: str) -> ModelHandle:
    return ModelHandle(name, *gf.load(folder))


@pytest.fixture(scope="module")
def url(folder):
    pair = tuple(gf.load(folder / "one"))
    with running({"one": pair}, runs=Runs([folder]), open_checkpoint=open_checkpoint) as address:
        yield address


def test_the_list_and_the_report_s_figures(url, folder):
    (run,) = json.loads(ask(url, "/api/runs")[1])["runs"]
    history = RunHistory(RunFolder(folder / "one"))
    best = history.best["val_loss"]
    assert run == {
        "name": "one",
        "state": "finished",
        "steps": 10,
        "steps_asked": 10,
        "score": "validation loss",
        "value": best,
        "checkpoints": [2, 4, 6, 8, 10],
    }
    whole = json.loads(ask(url, "/api/runs/one")[1])
    assert whole["sections"][0]["figures"] == json.loads(json.dumps(to_json([score_chart(history)])))
    titles = [section["title"] for section in whole["sections"]]
    assert titles[:2] == ["", "Curves"] and {"name": "Steps", "text": "10"} in whole["headline"]


def test_nothing_is_sent_again_until_something_is_written(url, folder):
    with urllib.request.urlopen(f"{url}/api/runs/one") as answer:
        tag = answer.headers["ETag"]

    def status() -> int:
        request = urllib.request.Request(f"{url}/api/runs/one", headers={"If-None-Match": tag})
        try:
            return urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            return error.code

    assert status() == 304
    events = folder / "one" / "events.jsonl"
    before = events.read_bytes() if events.exists() else None
    events.write_bytes((before or b"") + b'{"step": 10, "kind": "warning", "text": "<b>"}\n')
    assert status() == 200
    events.unlink() if before is None else events.write_bytes(before)


def test_a_checkpoint_is_a_model_of_its_own(url, folder):
    tokenizer = gf.load(folder / "one").tokenizer
    ids = tokenizer.encode("the")
    for step in (2, 10):
        model = gf.load(folder / "one" / "checkpoints" / f"step-{step:06}").model
        with torch.no_grad():
            expected = model.eval()(torch.tensor([ids]))[0, -1].softmax(-1).max()
        status, body = ask(url, "/api/look/next", {"model": f"one@{step}", "options": {"text": "the", "top": 1}})
        table = next(figure for figure in json.loads(body)["figures"] if figure["kind"] == "table")
        assert status == 200 and table["rows"][0][1]["value"] == pytest.approx(float(expected), abs=1e-6)
    named = [model["name"] for model in json.loads(ask(url, "/api/models")[1])["models"]]
    assert named == ["one"]  # the list is that of the models


@pytest.mark.parametrize("name", ["one@3", "one@", "one@-2", "../one@2", "two@2", "one@2/../../x", "one@" + "9" * 40])
def test_there_is_no_such_checkpoint(url, name):
    status, body = ask(url, "/api/look/next", {"model": name, "options": {"text": "the"}})
    assert status == 404 and json.loads(body)["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["two", "..%2Fone", "%2Fetc"])
def test_there_is_no_such_run(url, name):
    assert ask(url, f"/api/runs/{name}")[0] == 404


def test_few_checkpoints_stay_open_and_their_threads_end(folder):
    served = ServedModels({}, Runs([folder]), open_checkpoint)
    workers = [served[f"one@{step}"].worker for step in (2, 4, 6, 8)]
    assert served["one@8"].worker is workers[3] and list(served) == []
    closing = [thread for thread in threading.enumerate() if thread.name.startswith("Thread-")]
    for thread in closing:
        thread.join(timeout=30)
    assert [worker.running for worker in workers] == [False] + [True] * MOST_OPEN
    served.close()
    assert not any(worker.running for worker in workers)
    with pytest.raises(KeyError):
        ServedModels({}, Runs([folder]))["one@2"]


def test_runs_are_found_in_a_folder_as_they_appear(folder, tmp_path):
    runs = Runs([tmp_path, tmp_path / "missing"])
    assert runs.by_name() == {}
    os.symlink(folder / "one", tmp_path / "one")
    assert list(runs.by_name()) == ["one"] and checkpoints_of(runs.find("one")) == [2, 4, 6, 8, 10]
