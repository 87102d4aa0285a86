"""LoRA adapters: equal to `peft` both ways, merged equals applied."""

import pytest
import torch
import torch.nn.functional as F

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


EQUAL = 1e-5  # of the largest number of a tensor; transformers computes norms and rotary positions in fp32


def assert_equal_to_peft(ours, theirs):
    """Logits, the loss and the gradients of all adapters, in fp64, so that the order of sums does not matter."""
    ours, theirs = ours.double(), theirs.double()
    targets = IDS.roll(-1, dims=1).flatten()
    grads, seen = [], []
    for model in (ours, theirs):
        found = model(IDS)
        seen.append(getattr(found, "logits", found))
        loss = F.cross_entropy(seen[-1].flatten(0, 1), targets)
        seen.append(loss)
        grads.append(dict(zip(*named_adapters(model, loss), strict=True)))
    assert grads[0].keys() == grads[1].keys()
    pairs = [*zip(seen[:2], seen[2:], strict=True), *((grads[0][name], g) for name, g in grads[1].items())]
    for mine, wanted in pairs:
        assert wanted.abs().max() > 0
        torch.testing.assert_close(mine, wanted, rtol=0, atol=EQUAL * wanted.abs().max().item())
    with torch.no_grad(), theirs.disable_adapter():  # the adapter is not lost among the other numbers
        assert (theirs(IDS).logits - seen[0]).abs().max() > 0.1 * seen[0].abs().max()


def named_adapters(model, loss):
    """peft's names of the adapters of a model, and their gradients."""
    if isinstance(model, Decoder):
        parts = adaptable(model)
        named = {
            f"base_model.model.{part.theirs}.lora_{kind}.weight": getattr(layer, f"lora_{kind.lower()}")[i]
            for name, layer in lora_layers(model)
            for i, part in enumerate(parts[name])
            for kind in "AB"
            if getattr(layer, f"lora_{kind.lower()}")[i].any()  # a part without an adapter of its own
        }
    else:
        named = {name.replace(".default", ""): p for name, p in model.named_parameters() if "lora_" in name}
    return named, torch.autograd.grad(loss, list(named.values()))


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
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True).eval()
    assert_equal_to_peft(model, theirs)


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
    assert_equal_to_peft(ours, theirs)


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
