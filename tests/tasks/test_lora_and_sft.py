"""Fine-tuning: logits of trained tokens alone, a reference without a copy, samples, and one story from end to end."""

import json
import shlex

import pytest
import torch
from command_line import glassformer

from glassformer.data.batches import IGNORED
from glassformer.hub.adapters import new_adapter
from glassformer.layers.lora import lora_layers
from glassformer.models import Decoder, ModelConfig
from glassformer.tasks import GRPO, SFT, NextToken, losses
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.ppo import Critic
from glassformer.training import RunFolder

__all__ = ["glassformer"]

SHAPE = {"vocab_size": 61, "block_size": 32, "n_layer": 2, "n_head": 3, "n_embd": 18}


def decoder(**fields):
    torch.manual_seed(4)
    return Decoder(ModelConfig.make(family="modern", **SHAPE, **fields))


def batch():
    ids = torch.randint(0, 61, (3, 12), generator=torch.Generator().manual_seed(2))
    targets = ids.roll(-1, dims=1)
    targets[:, :7] = IGNORED
    targets[1] = IGNORED  # a row of which nothing is trained
    targets[2, 9:] = IGNORED
    return ids, targets


@pytest.mark.parametrize("fields", [{}, {"logit_softcap": 5.0}, {"tied_head": False}], ids=str)
@pytest.mark.parametrize("piece", [1, 1 << 20], ids=["in pieces", "at once"])
def test_logits_of_trained_tokens_alone_give_the_loss_and_gradients_of_all(fields, piece, monkeypatch):
    monkeypatch.setitem(losses.PIECE_BYTES, "cpu", 4 * 61 * piece)
    found = []
    for task in (SFT(), NextToken()):
        model = decoder(**fields)
        total, count, _ = task.loss(model, batch())
        total.backward()
        rows = task.rows(model, batch())
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found.append((total.detach(), torch.tensor(count), gradients, *rows))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert found[0][1] == 7


def test_with_lora_the_reference_is_the_model_without_its_adapters():
    model = decoder().eval()
    inputs, targets = batch()
    with torch.no_grad():
        before = token_log_probs(model, inputs, targets)
    new_adapter(model, "all", rank=2, alpha=4.0)
    for _, layer in lora_layers(model):
        for b in layer.lora_b:
            torch.nn.init.normal_(b)
    task = GRPO(reward="math:fsum")
    task.begin(model)
    assert torch.equal(task.log_probs(task.reference_model(), inputs, targets), before)
    assert not torch.allclose(task.log_probs(model, inputs, targets), before)
    weights = {tensor.data_ptr() for tensor in model.parameters()}
    assert {tensor.data_ptr() for tensor in task.reference_model().parameters()} <= weights


def test_with_lora_the_critic_shares_what_is_frozen_and_has_an_adapter_of_its_own():
    model = decoder()
    new_adapter(model, "all", rank=2, alpha=4.0)
    critic = Critic(model)
    shared = {tensor.data_ptr() for tensor in model.parameters() if not tensor.requires_grad}
    trained = {tensor.data_ptr() for tensor in model.parameters() if tensor.requires_grad}
    for tensor in critic.trunk.parameters():
        assert (tensor.data_ptr() in shared) != tensor.requires_grad and tensor.data_ptr() not in trained
    own = {tensor.data_ptr() for tensor in Critic(decoder()).parameters()}
    assert len(own) == len([*decoder().parameters()]) + 2 and not own & shared


SMALL = (
    "model.n_layer=1 model.n_head=2 model.n_embd=32 model.block_size=96 tokenizer.kind=bytes task.template=plain "
    "training.steps=4 training.batch_size=4 training.sample_tokens=5"
)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder with chats and preferences of one's own, and a small chat model."""
    place = tmp_path_factory.mktemp("story")
    rows = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"it is {i}"}]}
        for i in range(40)
    ]
    pairs = [{"prompt": row["messages"][:1], "chosen": f"it is {i}", "rejected": "no"} for i, row in enumerate(rows)]
    for name, lines in (("my", rows), ("pairs", pairs)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def test_tuning_shows_ten_answers_before_and_after(newcomer, glassformer, monkeypatch):
    monkeypatch.chdir(newcomer)
    made = glassformer("train", "--data", "my.jsonl", "task.kind=sft", "--out", "small", *shlex.split(SMALL))
    assert made.code == 0, made.err
    assert RunFolder(newcomer / "small").read_samples()[0]["step"] == 1  # it began from nothing
    tuned = glassformer(
        *shlex.split("tune sft --data my.jsonl --model small --out tuned training.lora_rank=2 training.steps=6"),
        *shlex.split("training.batch_size=4 training.sample_tokens=5 training.learning_rate=0.01"),
    )
    assert tuned.code == 0, tuned.err
    first, last = RunFolder(newcomer / "tuned").read_samples()
    assert (first["step"], last["step"]) == (0, 6) and first["text"] != last["text"]
    assert first["text"].splitlines()[::2] == last["text"].splitlines()[::2]  # the same prompts
    assert first["text"] in tuned.out and last["text"] in tuned.out
    assert "+-" in tuned.out
    aligned = glassformer(
        *shlex.split("tune dpo --data pairs.jsonl --model tuned --out aligned training.lora_rank=2 training.steps=3"),
        *shlex.split("training.batch_size=2 training.sample_tokens=5"),
    )
    assert aligned.code == 0, aligned.err
    answers = [
        glassformer("chat", *words, "-m", "say 7", "-n", "6").out
        for words in (["small", "--adapter", "tuned"], ["tuned"], ["tuned", "--adapter", "aligned"], ["aligned"])
    ]
    assert answers[0] == answers[1] and answers[2] == answers[3] and all(answers)
    wrong = glassformer("chat", "small", "--adapter", "aligned", "-m", "say 7")  # of `tuned`, and of its shape
    assert wrong.code == 1 and wrong.err.count("\n") == 1 and "tuned" in wrong.err


def test_lora_with_a_vocabulary_of_its_own_is_refused(newcomer, glassformer, monkeypatch):
    """Its table would stay random."""
    monkeypatch.chdir(newcomer)
    words = "tune sft --data my.jsonl --model small --out other training.lora_rank=2 tokenizer.kind=characters"
    refused = glassformer(*shlex.split(words), "task.template=plain", "training.batch_size=4", "training.steps=2")
    assert refused.code == 2 and "training.lora_rank" in refused.err and "embedding" in refused.err, refused.err
    assert not (newcomer / "other").exists()
