"""A GGUF file, or a folder of CTranslate2, is used where it lies: read once, kept by its content, the same model as
`import` makes of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from ctranslate2_standins import whisper, write_folder
from gguf_standins import toy, toy_tokenizers

import glassformer as gf
from glassformer.errors import ModelFolderError
from glassformer.hub import import_model, inspect, load_source_tokenizer, locate, model_folder_of, save_gguf
from glassformer.recipes import evaluate
from glassformer.server.app import open_models

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tokenizer = toy_tokenizers()["bytes"]
    save_gguf(tmp_path / "toy.gguf", toy("qwen3", tokenizer), tokenizer)
    return tmp_path / "toy.gguf"


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return a.config == b.config and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_gguf_file_is_the_model_that_import_makes_of_it(file: Path, tmp_path: Path, capsys):
    import_model(file, tmp_path / "ours")
    expected, its_tokenizer = gf.load(tmp_path / "ours")
    model, tokenizer = gf.load(file)
    assert same(model, expected) and tokenizer == its_tokenizer == load_source_tokenizer(file)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and str(file) in shown and "once" in shown
    assert same(open_models([str(file)], device="cpu", dtype="fp32")["toy.gguf"].model, expected)
    assert inspect(file)["form"] == "GGUF file"  # what it is, and not what was made of it
    assert capsys.readouterr().err == ""


def test_it_is_read_once_and_known_by_its_content(file: Path, tmp_path: Path, monkeypatch):
    folder = model_folder_of(file)
    hashed: list[Path] = []
    true = locate.sha256_file
    monkeypatch.setattr(locate, "sha256_file", lambda path: hashed.append(path) or true(path))
    monkeypatch.setattr(locate, "import_model", lambda *paths: pytest.fail("read again"))
    assert model_folder_of(file) == folder and hashed == []
    os.utime(file, (1, 1))
    assert model_folder_of(file) == folder and hashed == [file]
    (tmp_path / "elsewhere").mkdir()
    assert model_folder_of(shutil.copy(file, tmp_path / "elsewhere")) == folder


def test_another_file_of_the_same_name_is_another_model(file: Path):
    before, _ = gf.load(file)
    tokenizer = toy_tokenizers()["bytes"]
    save_gguf(file, toy("qwen3", tokenizer, n_embd=24), tokenizer)
    assert gf.load(file)[0].config.n_embd == 24 != before.config.n_embd


def test_a_damaged_file_leaves_nothing_behind(file: Path, empty_cache: Path):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelFolderError, match="cut short"):
        gf.load(file)
    assert not [*empty_cache.rglob("config.json")] and not [*empty_cache.rglob("*.safetensors")]


def test_a_folder_of_gguf_files(file: Path):
    with pytest.raises(ModelFolderError, match=r"toy\.gguf"):
        gf.load(file.parent)


def test_a_whisper_of_ctranslate2(tmp_path: Path):
    folder = write_folder(tmp_path / "whisper", whisper())
    import_model(folder, tmp_path / "ours")
    bundle, expected = gf.load(folder), gf.load(tmp_path / "ours")
    assert same(bundle.model, expected.model) and bundle.tokenizer == expected.tokenizer
    assert load_source_tokenizer(folder) == bundle.source_processor == expected.source_processor
    assert bundle.source_processor.n_mels == 7
    assert inspect(folder)["form"] == "CTranslate2 folder"


def test_a_gguf_file_is_evaluated(file: Path, tmp_path: Path):
    (tmp_path / "text.txt").write_text("to be or not to be " * 40)
    import_model(file, tmp_path / "ours")
    found = [evaluate(path, data=str(tmp_path / "text.txt")) for path in (file, tmp_path / "ours")]
    assert found[0] == found[1]
