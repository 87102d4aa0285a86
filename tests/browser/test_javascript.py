"""The page's modules without a browser: their types by TypeScript, their arithmetic by Node against torch."""

from __future__ import annotations

import base64
import json
import os
import subprocess

import numpy as np
import torch
from npm import JS, WEB, modules, node, package
from safetensors.torch import save
from test_arithmetic import SETTINGS, bits, sampling, some_logits

from glassformer.figures.axes import Scale, log_ticks, ticks
from glassformer.generation import filtered_probabilities
from glassformer.inspection import parameters

MOST_LINES = 300


def test_types_by_typescript():
    tsc = package("typescript") / "bin/tsc"
    done = subprocess.run([node(), str(tsc), "-p", str(JS / "jsconfig.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_typescript_finds_a_mistake(tmp_path):
    """The check can fail: a number where a cursor belongs."""
    copy = modules(tmp_path / "web")
    (copy / "wrong.js").write_text('import { addressOf } from "./address.js";\naddressOf(3);\n')
    config = {"extends": str(JS / "jsconfig.json"), "include": ["web/*.js"]}
    (tmp_path / "jsconfig.json").write_text(json.dumps(config))
    tsc = package("typescript") / "bin/tsc"
    done = subprocess.run([node(), str(tsc), "-p", "jsconfig.json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.count("error TS") == 1 and "web/wrong.js(2,11): error TS2345" in done.stdout


def test_modules_are_short():
    long = {
        file.name: n
        for web in WEB
        for file in web.glob("*.js")
        if (n := len(file.read_text().splitlines())) > MOST_LINES
    }
    assert not long


def test_arithmetic_equals_torchs(tmp_path):
    fixtures = tmp_path / "fixtures.json"
    given = {"sampling": _sampling(), "axes": _axes(), "tensors": _tensors(), "cursors": _cursors()}
    given["sums"] = _sums()
    fixtures.write_text(json.dumps(given, allow_nan=False))
    environment = {**os.environ, "WEB": str(modules(tmp_path / "web")), "FIXTURES": str(fixtures)}
    tests = sorted(map(str, JS.glob("*.test.js")))
    done = subprocess.run([node(), "--test", *tests], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _sampling() -> list[dict]:
    found = []
    for logits in some_logits()[:3]:
        drawn = [filtered_probabilities(logits[None], sampling(one, *one))[0] for one in SETTINGS]
        found.append(
            {
                "logits": logits.tolist(),
                "own": logits.double().softmax(-1).tolist(),
                "order": logits.sort(descending=True, stable=True).indices.tolist(),
                "settings": SETTINGS,
                "sampled": [p.tolist() for p in drawn],
                "bits": [bits(p) for p in drawn],
            }
        )
    return found


def _axes() -> list[dict]:
    found = []
    for low, high, log in [(0, 7.3, False), (-2.5, 1e-3, False), (3.0, 3.0, False), (1e-4, 40.0, True), (1, 90, True)]:
        scale = Scale(low, high, 10, 210, log)
        values = np.geomspace(low, high, 7) if log else np.linspace(scale.low, scale.high, 7)
        places = [float(scale(v)) for v in values]
        found.append(
            {
                "low": low,
                "high": high,
                "log": log,
                "values": values.tolist(),
                "places": places,
                "ticks": (log_ticks if log else ticks)(scale.low, scale.high),
            }
        )
    return found


def _tensors() -> dict:
    g = torch.Generator().manual_seed(0)
    tensors = {"logits": torch.randn(2, 5, generator=g), "positions": torch.tensor([3, 1 << 40])}
    numbers = {name: {"shape": list(t.shape), "values": t.flatten().tolist()} for name, t in tensors.items()}
    return {"file": base64.b64encode(save(tensors, {"model": "x"})).decode(), "numbers": numbers}


def _cursors() -> list[dict]:
    options = {"text": "To be & not=1\n#?", "layer": "1", "words": ["a b", "ä[]"]}
    return [
        {"panel": "write", "view": None, "model": None, "options": {}},
        {"panel": "look", "view": "attention", "model": "demo-1@20", "options": options},
    ]


def _sums() -> dict:
    g = torch.Generator().manual_seed(2)
    points = torch.rand(7, 2, generator=g, dtype=torch.float64)
    columns = torch.stack([points[:, 0], torch.ones(7, dtype=torch.float64)], dim=1)
    slope, start = torch.linalg.lstsq(columns, points[:, 1:]).solution[:, 0].tolist()
    a, b = torch.rand(2, 5, generator=g, dtype=torch.float64)
    counts = {part.part: part.parameters for part in parameters("gpt3").parts if part.in_lecture}
    parts = list(counts.values())
    return {
        "points": points.tolist(),
        "slope": slope,
        "start": start,
        "a": a.tolist(),
        "b": b.tolist(),
        "loss": float((slope * points[:, 0] + start - points[:, 1]).square().mean()),
        "product": float(a @ b),
        "angle": float(torch.nn.functional.cosine_similarity(a, b, dim=0)),
        "gpt3": parts,
    }
