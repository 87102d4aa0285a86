"""The self-test: on this machine, with this model, do fast and slow ways to compute the same thing agree?

Every check computes the same thing twice, in two ways that must give the same, and gives the largest difference as a
share of the largest number. It is run by users on their own machine: processors, drivers and builds of PyTorch differ.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from glassformer.errors import pip_line
from glassformer.generation import Engine, Request, Sampling
from glassformer.hub import family_for, save
from glassformer.hub.loading import as_dtype
from glassformer.hub.published import Reference
from glassformer.layers import Documents
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer
from glassformer.taps import listening
from glassformer.tasks import TASKS

MOST_FOR_TRANSFORMERS = 1_000_000_000  # parameters: 4 GB on disk for a moment
LENGTH = 48  # tokens of the texts that are read
SMALL = {"family": "modern", "n_layer": 3, "n_head": 6, "n_kv_head": 2, "n_embd": 192, "block_size": 128}


class Check(NamedTuple):
    """One check: what must agree, how far it differs, the bound on that, and the seconds that it took.

    difference: relative to the largest number; for tokens, the fraction that differs. None: the check cannot be made,
    for the reason `why`.
    """

    what: str
    difference: float | None
    bound: float
    seconds: float
    why: str = ""

    @property
    def held(self) -> bool:
        """Whether it is within its bound."""
        return self.difference is None or self.difference <= self.bound


def small_model() -> tuple[Decoder, Tokenizer]:
    """A decoder of the modern family with random weights, for a self-test of the machine alone."""
    tokenizer = TOKENIZERS["bytes"]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Decoder(ModelConfig.make(vocab_size=tokenizer.vocab_size, **SMALL))
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval(), tokenizer


def selftest(model: Decoder, tokenizer: Tokenizer, reference: Reference | None = None) -> Iterator[Check]:
    """All checks, one after the other. reference: the output of other software for this model."""
    checks: list[tuple[str, float, Callable[[Decoder, Tokenizer], float | str]]] = [
        ("read in pieces with a cache = read at once", 1e-4, _cached),
        ("several rows of different lengths = each alone", 1e-4, _rows),
        ("generated in a batch = generated alone", 0.0, _batched),
        ("eager attention = fused attention", 1e-4, _eager),
        ("two texts packed into one row = each alone", 1e-4, _packed),
        ("gradients of four small batches = of one large", 1e-4, _accumulated),
        ("logits = those of transformers", 1e-3, functools.partial(_known, reference)),
        ("blocks compiled, in int8 = layer by layer", 0.05, _compiled),
        ("int8 weights against fp32", 0.1, _int8),
    ]
    for what, bound, check in checks:
        started = time.perf_counter()
        with torch.no_grad():
            found = check(model, tokenizer)
        difference, why = (None, found) if isinstance(found, str) else (found, "")
        yield Check(what, difference, bound, time.perf_counter() - started, why)


def _texts(model: Decoder, *lengths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    longest = model.config.block_size
    return [torch.randint(model.config.vocab_size, (min(n, longest),), generator=generator) for n in lengths]


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((one.float() - other.float()).abs().max() / one.float().abs().max().clamp_min(1e-12))


def _cached(model: Decoder, tokenizer: Tokenizer) -> float:
    (ids,) = _texts(model, LENGTH)
    cache = model.new_cache(1, len(ids))
    cuts = [0, len(ids) // 3, len(ids) // 3 + 1, len(ids)]
    pieces = [model(ids[None, a:b], cache=cache) for a, b in itertools.pairwise(cuts)]
    return _apart(model(ids[None]), torch.cat(pieces, dim=1))


def _rows(model: Decoder, tokenizer: Tokenizer) -> float:
    rows = _texts(model, LENGTH - 1, LENGTH // 3, 5)
    cache = model.new_row_cache(3, 3 * model.config.block_size)
    cache.resize(3, max(map(len, rows)) + 1)
    for n, ids in enumerate(rows):
        model.hidden(ids[None], cache=cache.rows(n, n + 1))
    new = torch.zeros(3, 1, dtype=torch.int64)
    together = model(new, cache=cache.rows(0, 3))[:, 0]
    alone = torch.stack([model(torch.cat((ids, new[0]))[None])[0, -1] for ids in rows])
    return _apart(alone, together)


def _batched(model: Decoder, tokenizer: Tokenizer) -> float:
    """The share of requests whose tokens differ; where two tokens are equally likely to the last digit, one may."""
    requests = [
        Request(tuple(ids.tolist()), max_new_tokens=8, sampling=Sampling(seed=n, temperature=0.8))
        for n, ids in enumerate(_texts(model, 9, 20, 3, 14))
    ]
    requests = [request for request in requests if max(request.ids) < tokenizer.vocab_size]

    def answers(requests: list[Request]) -> list[list[int]]:
        engine = Engine(model, tokenizer, max_positions=4 * model.config.block_size)
        tokens: dict[int, list[int]] = {engine.submit(request): [] for request in requests}
        for event in engine.run():
            if event.piece is not None:
                tokens[event.request].append(event.piece.token)
        return list(tokens.values())

    together, alone = answers(requests), [answers([request])[0] for request in requests]
    return sum(a != b for a, b in zip(together, alone, strict=True)) / max(1, len(requests))


def _eager(model: Decoder, tokenizer: Tokenizer) -> float:
    """A listener to the pattern makes attention eager; without one, texts of this length take the kernel."""
    (ids,) = _texts(model, 2 * LENGTH)
    fused = model(ids[None])
    with listening(model, "blocks.*.attention.pattern", lambda name, pattern: None):
        return _apart(fused, model(ids[None]))


def _packed(model: Decoder, tokenizer: Tokenizer) -> float | str:
    if model.config.positions not in ("rotary", "alibi", "relative") or model.config.n_gram > 1:
        return "its positions cannot restart" if model.config.n_gram == 1 else "n-grams cross the border"
    one, two = _texts(model, LENGTH // 2, LENGTH // 3)
    ids = torch.cat((one, two))
    documents = Documents(torch.tensor([0] * len(one) + [1] * len(two)))
    pos = torch.arange(len(ids))
    packed = model.logits(model.run(model.embedding(ids[None], pos, model.positions), pos, padding=documents))
    return _apart(torch.cat((model(one[None]), model(two[None])), dim=1), packed)


def _accumulated(model: Decoder, tokenizer: Tokenizer) -> float:
    """The gradient of a matrix in the middle; all of them would take much memory."""
    rows = torch.stack(_texts(model, *[LENGTH // 2] * 4))
    task = next(task for task in TASKS.values() if task.planned and task.asks in model.answers)()
    middle = dict(model.named_parameters())[f"blocks.{len(model.blocks) // 2}.attention.out.weight"]

    def gradient(parts: int) -> Tensor:
        batches = [task.collate(list(piece), None) for piece in rows.chunk(parts)]
        losses = [task.loss(model, batch) for batch in batches]
        total = sum(int(count) for _, count, _ in losses)
        return sum(torch.autograd.grad(loss / total, [middle])[0] for loss, _, _ in losses)  # type: ignore[return-value]

    with torch.enable_grad():
        return _apart(gradient(1), gradient(4))


def _known(reference: Reference | None, model: Decoder, tokenizer: Tokenizer) -> float | str:
    """By what was kept of a published model, else by transformers itself, which reads the model as we write it."""
    if reference is None:
        return _in_transformers(model)
    logits_V = model(torch.tensor([reference.ids], device=next(model.parameters()).device))[0, -1].cpu()
    tokens = list(reference.logits)
    return _apart(torch.tensor([reference.logits[token] for token in tokens]), logits_V[tokens])


def _in_transformers(model: Decoder) -> float | str:
    if importlib.util.find_spec("transformers") is None:
        return f"needs transformers: {pip_line('transformers')}"
    if family_for(model.config).model_type == "glassformer":
        return "transformers has no model of this kind"
    if (parameters := sum(p.numel() for p in model.parameters())) > MOST_FOR_TRANSFORMERS:
        return f"{parameters:,} parameters are too many to write them out for transformers"
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    (ids,) = _texts(model, LENGTH)
    with tempfile.TemporaryDirectory(prefix="glassformer-selftest-") as folder:
        save(folder, model)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return _apart(theirs(ids[None]).logits, model(ids[None].to(next(model.parameters()).device)).cpu())


def _compiled(model: Decoder, tokenizer: Tokenizer) -> float | str:
    """A text read in two pieces."""
    small = as_dtype(model, "int8")
    if small.native is None:
        return "nothing is compiled for this model on this machine"
    (ids,) = _texts(model, LENGTH // 2)

    def read() -> Tensor:
        cache = small.new_row_cache(1, model.config.block_size)
        cache.resize(1, len(ids))
        return torch.cat([small(part[None], cache=cache.rows(0, 1)) for part in ids.split(len(ids) // 2 + 1)], dim=1)

    compiled = read()
    small.native = None
    return _apart(read(), compiled)


def _int8(model: Decoder, tokenizer: Tokenizer) -> float:
    (ids,) = _texts(model, LENGTH // 4)
    return _apart(model(ids[None]), as_dtype(model, "int8")(ids[None]))
