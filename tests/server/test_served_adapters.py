"""Adapters in use: served beside their model, given to commands, merged into a model folder."""

import json

import pytest
import torch
from command_line import glassformer, refused

pytest.importorskip("fastapi", reason="needs the extra serve")

from served import ask_json, running, small_decoder

import glassformer as gf
from glassformer.errors import ModelFolderError, UsageError
from glassformer.hub import save
from glassformer.hub.adapters import new_adapter, save_adapter
from glassformer.hub.loading import load_with_adapters
from glassformer.layers.lora import lora_layers, shared_copy
from glassformer.models import Decoder, ModelConfig
from glassformer.native import library
from glassformer.server.app import adapter_names, open_models

__all__ = ["glassformer", "refused"]
IDS = torch.arange(9).unsqueeze(0)


def adapter(model, folder, seed):
    adapted = shared_copy(model)
    new_adapter(adapted, "all", rank=2, alpha=8.0)
    torch.manual_seed(seed)
    for _, layer in lora_layers(adapted):
        for b in layer.lora_b:
            torch.nn.init.normal_(b)
    save_adapter(folder, adapted, base="small")
    return adapted.eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and two runs that adapted it."""
    path = tmp_path_factory.mktemp("adapted")
    _, tokenizer = small_decoder()
    torch.manual_seed(8)
    sizes = {"vocab_size": tokenizer.vocab_size, "block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 64}
    model = Decoder(ModelConfig.make(family="modern", **sizes)).eval()
    save(path / "small", model, tokenizer)
    for seed, name in enumerate("ab"):
        adapter(model, path / name / "adapter", seed)
    return path


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_every_number_format_equals_the_merged_model_in_it(place, dtype):
    if dtype.startswith("int") and library() is None:
        pytest.skip("needs a C++ compiler")
    base, found = load_with_adapters(place / "small", {"a": place / "a", "b": place / "b"}, dtype=dtype)
    tolerance = {"fp32": 1e-5, "bf16": 0.1}.get(dtype, 0.0)
    for bundle, folder in ((base, None), (found["a"], "a"), (found["b"], "b")):
        alone = gf.load(place / "small", dtype=dtype, adapter=folder and place / folder)
        torch.testing.assert_close(bundle.model(IDS), alone.model(IDS), atol=tolerance, rtol=tolerance)
        assert next(bundle.model.parameters()).dtype == next(alone.model.parameters()).dtype
    assert not torch.allclose(found["a"].model(IDS), found["b"].model(IDS), atol=0.2)
    if not dtype.startswith("int"):  # one copy of the weights in memory
        held = {p.data_ptr() for p in base.model.parameters()}
        for bundle in found.values():
            own = [p.numel() for p in bundle.model.parameters() if p.data_ptr() not in held]
            assert 0 < sum(own) < base.model.parameter_count() / 3


def test_each_adapter_is_a_model_of_the_api(place):
    models = open_models(
        [str(place / "small")],
        device="cpu",
        dtype="fp32",
        adapters=[f"first={place / 'a'}", str(place / "b" / "adapter")],
    )
    assert list(models) == ["small", "first", "b"]
    with running({name: (handle.model, handle.tokenizer) for name, handle in models.items()}) as address:
        body = {"prompt": "the quick", "max_tokens": 8, "temperature": 0}
        texts = {name: ask_json(address, "/v1/completions", {**body, "model": name})[1] for name in models}
    written = {name: answer["choices"][0]["text"] for name, answer in texts.items()}
    for name, folder in (("small", None), ("first", "a"), ("b", "b")):
        model, tokenizer = gf.load(place / "small", adapter=folder and place / folder)
        (alone,) = gf.generate(model, tokenizer, "the quick", max_new_tokens=8, temperature=0)
        assert written[name] == alone.text
    assert len(set(written.values())) == 3


def test_names_of_adapters(place):
    assert adapter_names(["x=some/folder"]) == {"x": "some/folder"}
    with pytest.raises(UsageError, match="NAME=FOLDER"):
        adapter_names(["runs/one", "other/one"])
    with pytest.raises(UsageError, match="small"):
        open_models([str(place / "small")], device="cpu", dtype="fp32", adapters=[f"small={place / 'a'}"])
    (place / "twin").symlink_to(place / "small")
    both = [str(place / "small"), str(place / "twin")]
    with pytest.raises(UsageError, match="one model"):
        open_models(both, device="cpu", dtype="fp32", adapters=[f"x={place / 'a'}"])


def test_an_adapter_of_other_weights_of_the_same_shape_is_refused(place):
    torch.manual_seed(9)
    model, tokenizer = gf.load(place / "small")
    model.init_weights()
    save(place / "other", model, tokenizer)
    with pytest.raises(ModelFolderError, match="small") as caught:
        gf.load(place / "other", adapter=place / "a")
    assert "\n" not in str(caught.value)


def test_commands_take_an_adapter(place, glassformer, refused, monkeypatch):
    monkeypatch.chdir(place)
    words = ["generate", "small", "--prompt", "the quick", "-n", "8", "--temperature", "0"]
    plain, adapted = glassformer(*words), glassformer(*words, "--adapter", "a")
    assert plain.code == adapted.code == 0 and plain.out != adapted.out
    assert glassformer("export", "small", "--to", "hf", "--adapter", "a", "--out", "merged").code == 0
    assert glassformer("import", "small", "--adapter", "a", "--out", "imported").code == 0
    for folder in ("merged", "imported"):
        assert glassformer(*["generate", folder, *words[2:]]).out == adapted.out
    chat = glassformer("chat", "small", "-m", "the fox", "-n", "5", "--adapter", "a", "--dtype", "int8")
    assert chat.code == 0
    look = glassformer("look", "next", "small", "the quick", "--json", "--adapter", "a")
    assert look.code == 0 and json.loads(look.out) != json.loads(
        glassformer("look", "next", "small", "the quick", "--json").out
    )
    refused("export", "small", "--to", "hf", "--adapter", "a", code=2, names=("--out",))
    refused("generate", "small", "--prompt", "a", "--adapter", "small", code=1, names=("adapter_config",))
    refused("generate", "a/adapter", "--prompt", "a", code=1, names=("--adapter",))
    refused("look", "parameters", "gpt2", "--adapter", "a", code=2, names=("--adapter",))
