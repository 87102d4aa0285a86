"""`glassformer pull | import | export | inspect | diff`: what they print and write."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from glassformer.errors import pip_line
from glassformer.files import cache_folder
from glassformer.hub import load, save_gguf
from glassformer.hub.published import HUB, PACKAGED, Published

for folder in ("data", "hub"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
from data_standins import server  # noqa: E402
from nano_gpt import NanoGPT, save_checkpoint  # noqa: E402
from package_standins import wheel  # noqa: E402

pytest.importorskip("gguf")
NANO = {"vocab_size": 44, "block_size": 11, "n_layer": 1, "n_head": 2, "n_embd": 16, "bias": True}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """nanoGPT's, as large as `finished`."""
    (tmp_path / "out").mkdir()
    torch.manual_seed(0)
    return save_checkpoint(tmp_path / "out" / "ckpt.pt", NanoGPT(**NANO), NANO)


@pytest.fixture
def gguf_file(glassformer, finished, tmp_path) -> Path:
    assert glassformer("export", "runs/finished", "--out", "toy.gguf").code == 0
    return tmp_path / "toy.gguf"


def test_without_a_name_it_lists_what_is_known(glassformer):
    code, out, err = glassformer("pull")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [*PACKAGED, *HUB]
    assert "gpt2                    openai-community/gpt2, from the model hub\n" in out


def test_a_pulled_model_opens_by_its_name(glassformer, refused, finished, tmp_path, monkeypatch):
    inside = {f"toy/{path.name}": path.read_bytes() for path in (finished / "model").iterdir()}
    data = wheel(tmp_path / "toy-1.0-py3-none-any.whl", inside).read_bytes()
    from glassformer.fetch import HttpsSource

    with server(lambda path, headers: (200, {}, data)) as address:
        source = HttpsSource(f"{address}/toy.whl", hashlib.sha256(data).hexdigest(), "MIT")
        monkeypatch.setitem(PACKAGED, "toy", Published(((source, "toy/"),), "a toy"))
        refused("generate", "toy", "--prompt", "To", code=1, line="toy: not fetched yet; run: glassformer pull toy")
        code, out, err = glassformer("pull", "toy")
    n = sum(p.numel() for p in load(finished)[0].parameters())
    place = cache_folder() / "models" / "toy"
    assert (code, err.splitlines()[-1]) == (0, "reading it ...") and "license: MIT" in err
    model, _, opened = out.splitlines()
    assert model == f"gpt2: {n:,} parameters (0.0 MiB), 1 layer, 2 heads, 16 channels, 11 tokens of context"
    assert opened.startswith("open it with: toy ") and str(place) in opened
    assert glassformer("generate", "toy", "--prompt", "To", "-n", 5).code == 0
    shown = json.loads(glassformer("pull", "toy", "--json").out)
    assert (shown["folder"], shown["model_type"], shown["parameters"], shown["bytes"]) == (str(place), "gpt2", n, 4 * n)
    assert shown["config"]["n_embd"] == 16


def test_a_checkpoint_of_nanogpt_with_its_text(glassformer, checkpoint, play, finished):
    code, out, err = glassformer("import", checkpoint, "--characters", "play.txt")
    assert (code, err) == (0, "") and out.splitlines()[-1].startswith("open it with: ckpt ")
    code, out, err = glassformer("generate", "ckpt", "--prompt", "Speak", "-n", 7, "--seed", 1)
    assert (code, err) == (0, "") and len(out.rstrip("\n")) >= 5
    words = ["--tokenizer", finished / "model", "--out", "a/b", "--json"]
    shown = json.loads(glassformer("import", "out/ckpt.pt", *words).out)
    assert shown["folder"] == "a/b" and shown["config"]["vocab_size"] == 44
    assert load("a/b")[1] == load("ckpt")[1] == load(finished)[1]


def test_a_gguf_file_and_a_folder(glassformer, gguf_file, finished):
    assert glassformer("import", "toy.gguf", "--out", "mine").out.splitlines()[-1].startswith("open it with: mine ")
    code, out, _ = glassformer("import", finished / "model", "--out", "copy")
    assert code == 0 and out.startswith("gpt2: ")
    (ours, _), (theirs, _) = load("copy"), load("mine")
    ids = torch.arange(11).unsqueeze(0)
    assert torch.equal(ours(ids), theirs(ids)[..., :44])


@pytest.mark.parametrize("type", ["f32", "f16", "bf16", "q8_0"])
def test_a_gguf_file_is_written_and_verified(type, glassformer, finished, tmp_path):
    code, out, err = glassformer("export", "runs/finished", "--type", type)
    path = tmp_path / f"finished.{type}.gguf"
    assert (code, err) == (0, "")
    wrote, again, *llama = out.splitlines()
    assert wrote == f"wrote finished.{type}.gguf ({path.stat().st_size / 2**20:,.1f} MiB, {type})"
    assert again.startswith("read again: the largest difference of a logit is ")
    assert again.endswith(" of the largest logit") and ("0.0e+00" in again) == (type == "f32")
    assert len(llama) == 1 and ("llama.cpp" in llama[0])
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {path.name}


def test_a_hugging_face_folder(glassformer, finished):
    code, out, _ = glassformer("export", "runs/finished", "--to", "hf")
    assert (code, out) == (0, "runs/finished/model is a Hugging Face folder already: "
                           "AutoModelForCausalLM.from_pretrained('runs/finished/model')\n")  # fmt: skip
    assert glassformer("export", "runs/finished", "--to", "hf", "--out", "theirs").out == "wrote theirs\n"
    assert load("theirs")[1] == load(finished)[1]


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        ("pull gtp2", 1, ["gtp2", "did you mean gpt2?"]),
        ("import nothing", 2, ["nothing"]),
        ("import out/ckpt.pt --characters a --tokenizer b", 2, ["--tokenizer", "--characters", "one"]),
        ("import out/ckpt.pt --characters binary", 2, ["binary", "0x80"]),
        ("import out/ckpt.pt --characters gone.txt", 2, ["gone.txt", "No such file"]),
        ("import out/ckpt.pt --characters many.txt", 1, ["out/ckpt.pt", "57 tokens", "44 logits"]),
        ("import out/damaged.pt --out mine", 1, ["out/damaged.pt", "damaged"]),
        ("export runs/finished --to onnx", 2, ["--to onnx", "gguf or hf"]),
        ("export runs/finished --type q4", 2, ["'q4'", "f32, f16, bf16, q8_0"]),
        ("export runs/finisht", 1, ["runs/finisht", "did you mean runs/finished?"]),
        ("inspect nothing", 1, ["nothing", "known: "]),
        ("inspect notes.txt", 2, ["notes.txt", "config.json", ".gguf", "ckpt.pt"]),
    ],
)
def test_mistakes_are_one_line_and_change_no_file(refused, checkpoint, finished, tmp_path, words, code, names):
    (tmp_path / "binary").write_bytes(b"\x80\x00")
    (tmp_path / "many.txt").write_text("".join(map(chr, range(33, 90))))
    (tmp_path / "out" / "damaged.pt").write_bytes(b"PK\3\4")
    (tmp_path / "notes.txt").write_text("hello")
    refused(*words.split(), code=code, names=names)


def test_a_missing_package_is_named(refused, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused("export", "runs/finished", code=1, names=["GGUF", pip_line("glassformer[gguf]")])


def test_inspect_shows_what_is_there(glassformer, gguf_file, finished, checkpoint):
    n = sum(p.numel() for p in load(finished)[0].parameters())
    weights = finished / "model" / "model.safetensors"
    for path, form, tensors in [
        ("runs/finished", "model folder", "F32 16"),
        ("toy.gguf", "GGUF file", "F32 16"),
        ("out/ckpt.pt", "nanoGPT checkpoint", "float32 16"),
    ]:
        code, out, err = glassformer("inspect", path)
        lines = {line.split()[0]: line for line in out.splitlines()}
        assert (code, err) == (0, "")
        assert lines["form"] == f"form          {form}" and lines["formats"] == f"formats       {tensors}"
        rows = n + 16 * (path == "toy.gguf")  # the end of text has a row there
        assert lines["parameters"] == f"parameters    {rows:,}"
        assert "n_layer 1, n_head 2, n_kv_head 2, n_embd 16" in lines["sizes"]
        shown = json.loads(glassformer("inspect", path, "--json").out)
        assert (shown["form"], shown["parameters"], shown["sizes"]["n_embd"]) == (form, rows, 16)
    assert shown["tokenizer"] is None and lines["tokenizer"] == "tokenizer     none"
    shown = json.loads(glassformer("inspect", "runs/finished", "--json").out)
    assert shown["tokenizer"]["kind"] == "characters" and shown["tokenizer"]["tokens"] == 44
    entry = next(file for file in shown["files"] if file["name"] == "model.safetensors")
    assert entry == {"name": "model.safetensors", "bytes": weights.stat().st_size,
                     "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}  # fmt: skip
    out = glassformer("inspect", "runs/finished").out
    assert f"  {weights.stat().st_size:>14,}  {entry['sha256'][:16]}  model.safetensors\n" in out


def test_diff_shows_what_differs(glassformer, finished, half, gguf_file):
    assert glassformer("diff", "runs/finished", "runs/finished").out.splitlines() == [
        "configuration  the same",
        "tokenizer      the same",
        "tensors        16 equal, 0 not",
    ]
    code, out, err = glassformer("diff", "runs/finished", "runs/half")
    assert (code, err) == (0, "") and "tensors        0 equal, 16 not\n" in out
    assert out.count(" of its norm\n") == 16
    lines = glassformer("diff", "runs/finished", "toy.gguf").out.splitlines()
    assert [line.split() for line in lines[:2]] == [["vocab_size", "44", "|", "45"], ["tokenizer", "different"]]
    assert lines[2] == "tensors        15 equal, 1 not"
    assert " ".join(lines[3].split()) == "embedding.token.weight (44, 16) and (45, 16)"


def test_diff_as_json_has_every_tensor(glassformer, finished, half):
    shown = json.loads(glassformer("diff", "runs/finished", "runs/half", "--json").out)
    assert (shown["config"], shown["tokenizer"], shown["tensors"]["equal"]) == ({}, True, 0)
    differing = shown["tensors"]["differing"]
    assert len(differing) == 16 and [entry["relative"] for entry in differing] == sorted(
        (entry["relative"] for entry in differing), reverse=True
    )
    name = "blocks.0.feedforward.up.weight"
    (a, _), (b, _) = load(finished), load(half)
    expected = (a.get_parameter(name) - b.get_parameter(name)).norm() / a.get_parameter(name).norm()
    assert next(e["relative"] for e in differing if e["name"] == name) == pytest.approx(expected.item())


def test_other_formats_can_be_compared(glassformer, finished, checkpoint, tmp_path):
    code, out, _ = glassformer("diff", "runs/finished", checkpoint)
    assert code == 0 and "tokenizer      missing in one of them" in out and "activation" in out


def test_nothing_is_left_behind(glassformer, finished, gguf_file, tmp_path):
    save_gguf(tmp_path / "toy.gguf", *load(finished), type="f16")  # in place of the older one
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".old"))]
