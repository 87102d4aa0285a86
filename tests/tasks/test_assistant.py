"""Tasks on chats: what is trained, what it costs, and roll-outs."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glassformer import recipes
from glassformer.data.batches import IGNORED
from glassformer.data.chat_sets import load_chats
from glassformer.data.chats import chat_row
from glassformer.errors import DataError, GlassformerError, ModelFolderError
from glassformer.hub import load_model, model_folder_of, save
from glassformer.hub.adapters import load_adapter
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer
from glassformer.tasks import DPO, GRPO, PPO, SFT
from glassformer.tasks.chats import CHAT_TOKENS, chat_sequences, use_template
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.ppo import generalized_advantages
from glassformer.tasks.rollouts import roll_out
from glassformer.training import RunFolder

HELLO = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "good day"}]
AGAIN = [*HELLO, {"role": "user", "content": "and again"}, {"role": "assistant", "content": "good day again"}]


@pytest.fixture(scope="module")
def tokenizer():
    made = build_tokenizer("bpe", ["hello there good day and again"] * 9, vocab_size=300, specials=CHAT_TOKENS)
    use_template(made, None, [])
    return made


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(3)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=64, n_layer=2, n_head=3, n_embd=15)
    return Decoder(config).eval()


@pytest.mark.parametrize(
    ("row", "prompt", "answers"),
    [
        ({"messages": HELLO}, [], (HELLO,)),
        ({"conversations": [{"from": "human", "value": "hello there"}, {"from": "gpt", "value": "good day"}]},
         [], (HELLO,)),
        ({"instruction": "hello", "input": "there", "output": "good day"},
         [{"role": "user", "content": "hello\n\nthere"}], (HELLO[1:],)),
        ({"prompt": "a", "completion": "b"}, "a", ("b",)),
        ({"prompt": HELLO[:1], "completion": HELLO[1:]}, HELLO[:1], (HELLO[1:],)),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "a", ("b", "c")),
        ({"chosen": "one two", "rejected": "one three"}, "one ", ("two", "three")),
        ({"chosen": HELLO, "rejected": [HELLO[0], {"role": "assistant", "content": "go"}]},
         HELLO[:1], (HELLO[1:], [{"role": "assistant", "content": "go"}])),
    ],
)  # fmt: skip
def test_forms_of_rows(row, prompt, answers):
    read = chat_row(row, "here")
    assert (read.prompt, read.answers) == (prompt, answers)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": []},
        {"messages": HELLO[:1]},
        {"prompt": "a", "completion": " "},
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"prompt": "a", "completion": "b", "label": "yes"},
        {"something": 1},
    ],
)
def test_rows_that_teach_nothing_are_refused_with_their_place(row):
    with pytest.raises(DataError, match=r"file\.jsonl:7"):
        chat_row(row, "file.jsonl:7")


def test_turns_of_the_assistant_are_trained_with_their_end_and_nothing_else(tokenizer):
    (sequence,) = chat_sequences(tokenizer, chat_row({"messages": AGAIN}, ""), AGAIN)
    spans = np.split(np.arange(len(sequence.ids)), np.flatnonzero(np.diff(sequence.trained)) + 1)
    trained = [tokenizer.decode(sequence.ids[span]) for span in spans if sequence.trained[span[0]]]
    assert trained == ["good day<|im_end|>", "good day again<|im_end|>"]


def test_what_stands_before_an_answer_is_what_serving_reads(tokenizer):
    (sequence,) = chat_sequences(tokenizer, chat_row({"messages": AGAIN}, ""), AGAIN)
    first = int(np.flatnonzero(sequence.trained)[0])
    assert sequence.ids[:first].tolist() == tokenizer.chat.encode(HELLO[:1])


def test_an_empty_answer_of_a_model_can_be_scored(tokenizer):
    row = chat_row({"prompt": HELLO[:1], "answer": ""}, "")
    (sequence,) = chat_sequences(tokenizer, row, [{"role": "assistant", "content": "  "}])
    assert sequence.ids[-1] in tokenizer.chat.turn_ends and sequence.trained[-1]


def test_a_template_that_rewrites_earlier_turns_gives_one_sequence_an_answer(tokenizer):
    other = build_tokenizer("bpe", ["hello there good day and again"] * 9, vocab_size=300, specials=CHAT_TOKENS)
    other.chat_template = (
        "{% for m in messages %}{% if not loop.first or messages|length < 3 %}"
        "{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    )
    assert len(chat_sequences(other, chat_row({"messages": AGAIN}, ""), AGAIN)) == 2


def test_log_probs_of_tokens_equal_those_of_all_logits(model):
    inputs_BT = torch.randint(0, 250, (3, 11))
    targets_BT = torch.randint(0, 250, (3, 11)).masked_fill(torch.rand(3, 11) < 0.4, IGNORED)
    plain_BTV = model(inputs_BT).log_softmax(-1)
    counts_BT = targets_BT != IGNORED
    expected_BT = plain_BTV.gather(2, targets_BT.clamp(min=0)[..., None])[..., 0].where(counts_BT, 0)
    found_BT = token_log_probs(model, inputs_BT, targets_BT)
    torch.testing.assert_close(found_BT, expected_BT)
    gradients = [
        torch.autograd.grad(x.sum(), model.embedding.token.weight, retain_graph=True)[0]
        for x in (found_BT, expected_BT)
    ]
    torch.testing.assert_close(*gradients)


def dpo_batch(task, model, tokenizer):
    row = chat_row(
        {"prompt": HELLO[:1], "chosen": HELLO[1:], "rejected": [{"role": "assistant", "content": "again"}]}, ""
    )
    task.reference = model
    from glassformer.tasks.chats import ChatSource

    task.source = ChatSource("toy", {"train": [row, row], "validation": [row], "test": []}, tokenizer)
    return task.collate(task.encoded("train", 32))


@pytest.mark.parametrize(("loss", "expected"), [("sigmoid", math.log(2)), ("ipo", 25.0)])
def test_dpo_of_equal_models(model, tokenizer, loss, expected):
    task = DPO(loss=loss)
    found = task.loss(model, dpo_batch(task, model, tokenizer))
    assert found.sum.item() / found.count == pytest.approx(expected, abs=1e-5)


def test_dpo_equals_its_formula(model, tokenizer):
    task = DPO(beta=0.3)
    batch = dpo_batch(task, model, tokenizer)
    torch.manual_seed(8)
    other = Decoder(model.config).eval()

    def log_prob(of, inputs_BT, targets_BT):
        counts_BT = targets_BT != IGNORED
        return (
            of(inputs_BT)
            .log_softmax(-1)
            .gather(2, targets_BT.clamp(min=0)[..., None])[..., 0]
            .where(counts_BT, 0)
            .sum(1)
        )

    margin = log_prob(other, *batch[:2]) - log_prob(model, *batch[:2])
    margin = margin - log_prob(other, *batch[2:4]) + log_prob(model, *batch[2:4])
    expected = -torch.nn.functional.logsigmoid(0.3 * margin).sum()
    torch.testing.assert_close(task.loss(other, batch).sum, expected, atol=1e-5, rtol=0)


def grpo(model, tokenizer, **settings):
    task = GRPO(reward="exact", samples=2, max_new_tokens=6, **settings)
    task.begin(model)
    from glassformer.tasks.chats import ChatSource

    task.source = ChatSource("toy", {}, tokenizer)
    return task


def test_the_first_ratio_of_grpo_is_one_and_its_gradient_is_that_of_the_policy(model, tokenizer):
    task = grpo(model, tokenizer)
    prompts = [(chat_row({"prompt": HELLO[:1]}, ""), tokenizer.chat.encode(HELLO[:1]))] * 2
    rollouts = roll_out(model, tokenizer, prompts, samples=2, max_new_tokens=6, seed=5)
    batch = task.batch_of(rollouts, torch.tensor([1.0, 0.0, 3.0, 1.0]))
    loss = task.loss(model, batch)
    assert loss.metrics["clip_fraction"][0] == 0
    advantages_BT, counts_BT = batch[4], batch[1] != IGNORED
    assert loss.sum.item() == pytest.approx(-float((advantages_BT * counts_BT).sum()), abs=1e-4)
    ours = torch.autograd.grad(loss.sum, model.embedding.token.weight)[0]
    surrogate = -(token_log_probs(model, *batch[:2]) * advantages_BT).sum()
    torch.testing.assert_close(
        ours, torch.autograd.grad(surrogate, model.embedding.token.weight)[0], atol=1e-5, rtol=1e-4
    )


def test_generalized_advantages_equal_their_sum_of_errors():
    rewards, values = torch.randn(2, 7), torch.randn(2, 7)
    counts = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1]], dtype=torch.bool)
    found = generalized_advantages(rewards, values * counts, counts, 0.9, 0.7)
    for b in range(2):
        steps = counts[b].nonzero().flatten().tolist()
        after = {t: float(values[b, t + 1]) if t + 1 in steps else 0.0 for t in steps}
        errors = {t: float(rewards[b, t]) + 0.9 * after[t] - float(values[b, t]) for t in steps}
        expected = [sum(0.63 ** (u - t) * errors[u] for u in steps if u >= t) for t in steps]
        torch.testing.assert_close(found[b][counts[b]], torch.tensor(expected), atol=1e-5, rtol=0)
        assert not found[b][~counts[b]].any()


def test_the_first_ratio_of_ppo_is_one_and_the_score_stands_on_the_last_token(model, tokenizer):
    task = PPO(reward="exact", beta=0.5, max_new_tokens=6)
    task.reference = model
    task.begin(model)
    prompts = [(chat_row({"prompt": HELLO[:1]}, ""), tokenizer.chat.encode(HELLO[:1]))] * 3
    rollouts = roll_out(model, tokenizer, prompts, samples=1, max_new_tokens=6, seed=5)
    batch = task.batch_of(rollouts, torch.tensor([1.0, -2.0, 4.0]))
    loss = task.loss(model, batch)
    assert loss.metrics["clip_fraction"][0] == 0 and loss.metrics["kl"][0] == pytest.approx(0, abs=1e-5)
    returns_BT, counts_BT = batch[4], batch[1] != IGNORED  # the critic is 0, so a return is the discounted score
    lasts = [row[counts][-1].item() for row, counts in zip(returns_BT, counts_BT, strict=True)]
    assert lasts == pytest.approx([1.0, -2.0, 4.0], abs=1e-5)


def test_the_sampler_and_the_trainer_agree_on_log_probabilities(model, tokenizer):
    from glassformer.generation import Engine, Request, Sampling

    prompt = tokenizer.chat.encode(HELLO[:1])
    events = Engine(model, tokenizer).run(
        Request(tuple(prompt), max_new_tokens=9, sampling=Sampling(seed=4), end_tokens=frozenset())
    )
    pieces = [event.piece for event in events if event.piece is not None]
    ids = [*prompt, *(piece.token for piece in pieces)]
    targets_1T = torch.tensor([[IGNORED] * (len(prompt) - 1) + ids[len(prompt) :]])
    found = token_log_probs(model, torch.tensor([ids[:-1]]), targets_1T)[0, len(prompt) - 1 :]
    torch.testing.assert_close(found, torch.tensor([math.log(p.probability) for p in pieces]), atol=1e-4, rtol=0)


def sort_reward(prompts, completions, answer):
    return [
        sum(a == b for a, b in zip(c, wanted, strict=False)) / 4 for c, wanted in zip(completions, answer, strict=True)
    ]


def test_sft_then_dpo_then_grpo_and_a_resume_in_the_middle_of_an_iteration(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    texts = ["".join(np.random.default_rng(i).permutation(list("0123"))) for i in range(60)]
    files = {
        "sft": [{"prompt": f"{t}=", "completion": "0123"} for t in texts],
        "dpo": [{"prompt": f"{t}=", "chosen": "0123", "rejected": t[::-1] + "0"} for t in texts],
        "grpo": [{"prompt": f"{t}=", "answer": "0123"} for t in texts],
    }
    for name, rows in files.items():
        rows = [{**row, "split": "validation" if i % 10 == 0 else "train"} for i, row in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = [
        "training.batch_size=8",
        "training.eval_every=4",
        "training.checkpoint_every=1",
        "training.steps=6",
        "training.precision=fp32",
    ]
    shape = [
        "model.kind=decoder",
        "model.n_layer=1",
        "model.n_head=2",
        "model.n_embd=16",
        "model.block_size=16",
        "tokenizer.kind=bytes",
    ]
    start = recipes.train(
        None, ["task.kind=sft", *shape, *common], data=str(tmp_path / "sft.jsonl"), out=tmp_path / "start"
    )
    after = [*common, f"training.start_from={start.path}"]
    dpo = recipes.train(None, ["task.kind=dpo", *after], data=str(tmp_path / "dpo.jsonl"), out=tmp_path / "dpo")
    first, *_, last = RunFolder(dpo.path).read_metrics()
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4) and last["loss"] < first["loss"]
    words = [
        "task.kind=grpo",
        f"task.reward={__name__}:sort_reward",
        "task.samples=4",
        "task.updates=2",
        "task.max_new_tokens=5",
        *after,
    ]
    whole, cut = (
        recipes.train(None, words, data=str(tmp_path / "grpo.jsonl"), out=tmp_path / n) for n in ("whole", "cut")
    )
    for folder in (cut.path / "checkpoints").iterdir():
        if folder.name > "step-000003":  # an odd step: the second update with the same answers is still to come
            folder.rename(tmp_path / folder.name)
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    weights = [
        (path / "checkpoints/step-000006/model/model.safetensors").read_bytes() for path in (whole.path, cut.path)
    ]
    assert weights[0] == weights[1]


def test_lora_trains_the_adapter_alone_and_resumes(tmp_path):
    rows = [
        {"prompt": f"{i}=", "completion": "0123", "split": "validation" if i % 5 == 0 else "train"} for i in range(40)
    ]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data, out = str(tmp_path / "sft.jsonl"), tmp_path
    words = ["task.kind=sft", "training.batch_size=8", "training.checkpoint_every=2", "training.precision=fp32"]
    shape = ["model.kind=decoder", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16"]
    start = recipes.train(
        None, [*words, *shape, "tokenizer.kind=bytes", "training.steps=2"], data=data, out=out / "start"
    )
    words += [f"training.start_from={start.path}", "training.lora_rank=2", "training.steps=4", "training.eval_every=4"]
    whole, cut = (recipes.train(None, words, data=data, out=out / name) for name in ("whole", "cut"))
    (cut.path / "checkpoints" / "step-000004").rename(out / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):  # the order of metadata is random
        one, other = (load_file(run.path / file) for run in (whole, cut))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    model, checkpoint = load_model(start.path / "model"), whole.path / "checkpoints" / "step-000004"
    load_adapter(checkpoint, model)
    assert not (checkpoint / "model").exists()
    ids = torch.randint(0, 256, (1, 7))
    torch.testing.assert_close(model(ids), load_model(whole.path / "model")(ids), atol=1e-5, rtol=1e-5)


def test_a_run_with_lora_whose_base_has_changed_or_is_gone_does_not_go_on(tmp_path):
    rows = [{"prompt": f"{i}=", "completion": "01", "split": "validation" if i % 5 == 0 else "train"} for i in range(9)]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer, start = build_tokenizer("bpe", ["0=12"] * 9, vocab_size=260), tmp_path / "start"
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=16, n_layer=1, n_head=2, n_embd=16)
    save(start, Decoder(config), tokenizer)
    words = ["task.kind=sft", "training.batch_size=4", "training.precision=fp32", "training.steps=4"]
    words += ["training.checkpoint_every=2", "training.lora_rank=2", f"training.start_from={start}"]
    run = recipes.train(None, words, data=str(tmp_path / "sft.jsonl"), out=tmp_path / "run").path
    shutil.rmtree(run / "checkpoints" / "step-000004")
    (run / "summary.json").unlink()
    with pytest.raises(ModelFolderError, match=r"step-000002/adapter: an adapter without its model; .*--adapter"):
        model_folder_of(run / "checkpoints" / "step-000002")
    model = load_model(start)
    with torch.no_grad():
        model.embedding.token.weight[-1, -1] += 1e-3
    save(start, model, tokenizer)
    for match in (r"start_from=.*start: its weights have changed .* train a new run", "start: there is no such"):
        with pytest.raises(GlassformerError, match=match) as caught:
            recipes.resume(run)
        assert "\n" not in str(caught.value)
        start.rename(tmp_path / "elsewhere") if start.exists() else None


def test_dpo_without_a_model_to_start_from_is_refused(tmp_path):
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i}", "chosen": "b", "rejected": "c"}) + "\n" for i in range(9))
    )
    with pytest.raises(GlassformerError, match="start_from"):
        recipes.train(
            None, ["task.kind=dpo", "tokenizer.kind=bytes"], data=str(tmp_path / "p.jsonl"), out=tmp_path / "run"
        )


def test_a_file_of_another_form_is_refused(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    with pytest.raises(DataError, match=r"p\.jsonl"):
        load_chats(tmp_path / "p.jsonl")
    with pytest.raises(DataError, match="chosen"):
        SFT.check_rows({"train": [chat_row({"prompt": "a", "chosen": "b", "rejected": "c"}, "p:1")]})
