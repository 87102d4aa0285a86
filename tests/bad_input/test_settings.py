"""Settings that cannot be: the value, the rule and the next step in one line, before anything is read or written."""

from __future__ import annotations

import pytest
from command_line import TINY

OWN = " (one of your own: --plugin MODULE)"
MISTAKES = [
    ("model.n_embd=17", "n_embd=17 is not divisible by n_head=2; try n_embd=16"),
    ("model.n_layers=2", "unknown key model.n_layers; did you mean n_layer?"),
    ("model.dropout=0.1", "unknown key model.dropout; did you mean training.dropout?"),
    ("modle.n_layer=2", "unknown section 'modle' in 'modle.n_layer=2'; did you mean model?"),
    ("n_layer=2", "'n_layer=2' is not of the form section.key=value; did you mean model.n_layer?"),
    ("steps", "'steps' is not of the form section.key=value; did you mean training.steps?"),
    ("training=3", "'training=3' is not of the form section.key=value; for example training.steps=500"),
    ("model.n_layer=two", "model.n_layer='two' is not a whole number; give one, for example model.n_layer=4"),
    ("model.n_layer=2.5", "model.n_layer=2.5 is not a whole number; give one, for example model.n_layer=4"),
    ("model.n_layer=0", "model.n_layer=0 is too small; use 1 or more"),
    ("model.n_head=0", "model.n_head=0 is too small; use 1 or more"),
    ("model.block_size=0", "model.block_size=0 is too small; use 1 or more"),
    ("model.n_layer=100000000000000000000", "model.n_layer=100000000000000000000 is too large; use 1000 or less"),
    ("model.family=clasic", "model.family='clasic' is unknown; use classic, modern or original"),
    ("model.positions=lerned", "positions='lerned' is unknown; did you mean learned?" + OWN),
    ("model.bias=maybe", "model.bias='maybe' is neither yes nor no; use model.bias=true or model.bias=false"),
    ("model.size=gpt9", "model.size='gpt9' is unknown; did you mean gpt3?"),
    ("tokenizer.kind=charcters", "tokenizer.kind='charcters' is unknown; did you mean characters?"),
    ("tokenizer.vocab_size=0", "tokenizer.vocab_size=0 is too small; use 1 or more"),
    ("task.kind=masked", "task.kind='masked' is unknown; did you mean masked_tokens?" + OWN),
    ("data.validation_fraction=1", "data.validation_fraction=1 is too large; use less than 1"),
    ("data.validation_fraction=0", "data.validation_fraction=0 is too small; use more than 0"),
    ("training.steps=0", "training.steps=0 is too small; use 1 or more"),
    ("training.batch_size=0", "training.batch_size=0 is too small; use 1 or more"),
    ("training.micro_batch_size=0", "training.micro_batch_size=0 is too small; use 1 or more"),
    ("training.seed=-1", "training.seed=-1 is too small; use 0 or more"),
    ("training.dropout=1.5", "training.dropout=1.5 is too large; use less than 1"),
    ("training.learning_rate=0", "training.learning_rate=0 is too small; use more than 0"),
    ("training.learning_rate=fast",
     "training.learning_rate='fast' is not a number; give one, for example training.learning_rate=0.1"),
    ("training.learning_rate=inf", "training.learning_rate=inf is not a finite number; give one"),
    ("training.optimizer=adam", "training.optimizer='adam' is unknown; did you mean adamw?"),
    ("training.schedule=cosin", "training.schedule='cosin' is unknown; did you mean cosine?" + OWN),
    ("training.init=zero", "training.init='zero' is unknown; known: gpt2, unit, xavier"),
    ("training.precision=fp16", "training.precision='fp16' is unknown; use auto, fp32 or bf16"),
    ("training.compile=true", "training.compile=True is unknown; use auto, on or off"),
    ("training.device=gpu", "device='gpu' is unknown; use auto, cpu, cuda or cuda:N"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "line"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_an_impossible_setting(refused, play, override, line):
    refused("train", *TINY, override, "--data", "play.txt", code=2, line=line)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--seed", "-1"], "training.seed=-1 is too small; use 0 or more"),
        (["--seed", str(2**63)], f"training.seed={2**63} is too large; use less than {2**63}"),
        (["--seed", "one"], "invalid value for '--seed': a whole number is needed; see: glassformer train --help"),
        (["--device", "cuda:x"], "device='cuda:x' is unknown; use auto, cpu, cuda or cuda:N"),
        (["training.seed=3", "--seed", "4"], "training.seed is given twice, as --seed and as training.seed=3; use one"),
        (["data.source=a.txt"], "data.source is given twice, as --data and as data.source=a.txt; use one"),
        (["--sed", "3"], "no such option: --sed; did you mean --seed?; see: glassformer train --help"),
    ],
)
def test_an_impossible_option(refused, play, options, line):
    refused("train", *TINY, *options, "--data", "play.txt", code=2, line=line)


def test_nothing_to_train_on(refused):
    refused("train", code=2,
            line="name a recipe (see: glassformer recipes list), or give your own text with --data FILE")  # fmt: skip
    refused("train", "model.n_layer=2", code=2,
            line="name a recipe (see: glassformer recipes list), or give your own text with --data FILE")  # fmt: skip


def test_a_word_that_is_no_command(refused):
    refused("trian", code=2, line="there is no command 'trian'; did you mean train?; see: glassformer --help")
    refused("data", "lst", code=2, line="there is no command 'lst'; did you mean list?; see: glassformer data --help")
    refused("resume", code=2, line="missing argument 'RUN'; see: glassformer resume --help")


def test_cuda_where_there_is_none(refused, play, finished, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    line = "was asked for, but this PyTorch is built without CUDA; use --device cpu, or install a CUDA build of PyTorch"
    refused("train", *TINY, "--data", "play.txt", "--device", "cuda", code=1, line=f"device=cuda {line}")
    refused("generate", finished, "--device", "cuda:1", code=1, line=f"device=cuda:1 {line}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    refused("train", *TINY, "--data", "play.txt", "--device", "cuda", code=1,
            line="device=cuda was asked for, but no CUDA device is visible; use --device cpu, or install a CUDA build "
            "of PyTorch")  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "needs", "smaller"),
    [
        (
            ["model.n_layer=1000", "model.n_embd=1000000", "model.n_head=1000"],
            "192,000,208.9 GB of memory (12,000,013,057,000,000 parameters, 3 sequences",
            "model.n_layer or model.n_embd",
        ),
        (
            ["training.batch_size=1000000000000", "training.micro_batch_size=1"],
            "176,000.0 GB of memory (4,192 parameters, 1,000,000,000,000 sequences",
            "training.batch_size",
        ),
        (
            ["training.batch_size=10000000"],
            "30.0 GB of memory (4,192 parameters, 10,000,000 sequences",
            "training.micro_batch_size",
        ),
    ],
)
def test_more_than_the_memory_holds(refused, play, monkeypatch, overrides, needs, smaller):
    """Refused with the numbers; without the check the system would kill the process without a word."""
    from glassformer.recipes import memory

    monkeypatch.setattr(memory, "available_memory", lambda device: 8_000_000_000)
    line = f"training needs at least {needs} of 11 tokens a step) and 8.0 GB are free; try a smaller {smaller}"
    refused("train", *TINY, *overrides, "--data", "play.txt", code=1, line=line)


def test_this_machine_reports_its_memory():
    from glassformer.training import available_memory

    free = available_memory("cpu")
    assert free is None or 2**24 < free < 2**50


def test_an_impossible_shape_is_refused_before_the_text_is_looked_for(refused):
    """Reading may take minutes, and the mistake is the same whatever is read."""
    line = "n_embd=17 is not divisible by n_head=2; try n_embd=16"
    refused("train", *TINY, "model.n_embd=17", "--data", "nothing.txt", code=2, line=line)
