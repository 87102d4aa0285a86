"""LoRA adapters: equal to `peft` both ways, merged equals applied."""

import pytest
import torch

from glassformer.errors import ModelFolderError
from glassformer.hub import load_model, save
from glassformer.hub.adapters import adaptable, load_adapter, new_adapter, save_adapter
from glassformer.hub.weights import load_weights, save_weights
from glassformer.layers.lora import lora_layers, merge_lora, shared_copy, without_lora
from glassformer.models import Decoder, ModelConfig

SHAPE = {"vocab_size": 53, "block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 24}


def base(family):
    torch.manual_seed(5)
    grouped = {"n_kv_head": 2} if family == "modern" else {}
    return Decoder(ModelConfig.make(family=family, **SHAPE, **grouped)).eval()


def randomised(model):
    torch.manual_seed(6)
    for _, layer in lora_layers(model):
        for b in layer.lora_b:
            torch.nn.init.normal_(b, std=0.3)
    return model


IDS = torch.randint(0, 53, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", ["classic", "modern"])
@pytest.mark.parametrize("targets", ["all", "attention"])
def test_an_adapter_loads_in_peft_and_computes_the_same(family, targets, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = base(family)
    save(tmp_path / "base", model)
    new_adapter(model, targets, rank=3, alpha=5.0)
    assert torch.equal(model(IDS), load_model(tmp_path / "base")(IDS))  # B is zero
    save_adapter(tmp_path / "adapter", randomised(model), base="base")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), theirs(IDS).logits, atol=1e-4, rtol=1e-4)


def test_an_adapter_of_peft_loads_here(tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    save(tmp_path / "base", base("modern"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(theirs, config).eval()
    torch.manual_seed(2)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_model(tmp_path / "base")
    load_adapter(tmp_path / "adapter", ours)
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS), theirs(IDS).logits, atol=1e-4, rtol=1e-4)


def test_merged_weights_compute_what_the_adapter_does():
    model = base("modern")
    new_adapter(model, "all", rank=3, alpha=5.0)
    with torch.no_grad():
        applied = randomised(model)(IDS)
        merge_lora(model)
        torch.testing.assert_close(model(IDS), applied, atol=1e-5, rtol=1e-5)
    assert not list(lora_layers(model))


def test_only_the_adapter_is_trained():
    model = base("modern")
    new_adapter(model, "attention", rank=3, alpha=5.0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name and ".attention." in name for name in trained)
    assert {len(parts) for parts in adaptable(model).values()} == {1, 2, 3}


def test_an_adapter_of_another_model_is_refused(tmp_path):
    model = base("modern")
    new_adapter(model, "all", rank=3, alpha=5.0)
    save_adapter(tmp_path / "adapter", model, base="small")
    torch.manual_seed(5)
    for other in (Decoder(ModelConfig.make(family="modern", **{**SHAPE, "n_embd": 40})), base("classic")):
        with pytest.raises(ModelFolderError, match="small"):
            load_adapter(tmp_path / "adapter", other)
    with pytest.raises(ModelFolderError, match=r"adapter_config\.json"):
        load_adapter(tmp_path / "nothing", model)


def test_a_model_without_its_adapters_shares_the_weights():
    model = base("modern")
    with torch.no_grad():
        before = model(IDS)
    new_adapter(model, "all", rank=3, alpha=5.0, dropout=0.5)
    randomised(model).train()
    view = without_lora(model)
    assert torch.equal(view(IDS), before) and not torch.allclose(model(IDS), before)
    own = {id(p) for p in model.parameters()}
    assert all(id(p) in own for p in view.parameters())
    assert list(lora_layers(model)) and model.training  # unchanged
    with torch.no_grad():
        model.blocks[0].attention.qkv.lora_b[0].add_(1)
        torch.testing.assert_close(view(IDS), before, atol=0, rtol=0)


def test_adapters_of_shared_copies_do_not_meet():
    model = base("modern")
    with torch.no_grad():
        before = model(IDS)
    one, other = shared_copy(model), shared_copy(model)
    new_adapter(one, "all", rank=3, alpha=5.0)
    new_adapter(other, "attention", rank=2, alpha=5.0)
    randomised(one)
    assert torch.equal(model.requires_grad_(False)(IDS), before) and torch.allclose(other(IDS), before, atol=1e-6)
    assert not torch.allclose(one(IDS), before)
    assert one.embedding.token.weight is other.embedding.token.weight is model.embedding.token.weight


def test_files_with_metadata_are_the_same_bytes_at_each_call(tmp_path):
    tensors = {f"ü{i}": torch.arange(i) for i in range(5)}
    for n in range(9):
        save_weights(tmp_path / f"{n}.safetensors", tensors, base="abc", more="é")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert all(torch.equal(tensors[name], tensor) for name, tensor in load_weights(tmp_path / "8.safetensors").items())
