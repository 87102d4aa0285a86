"""The next token: the whole distribution, what temperature and filters make of it, and the token that a seed draws.

    logits ─► softmax ─► raw       ─► / temperature ─► tempered     ─► filters ─► sampling_probability ─► u ─► token

"One feature that I would very much enjoy is the ability to see the underlying distribution for each new word that it
chooses" (3Blue1Brown, Transformers, the tech behind LLMs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import plural
from glassformer.figures import Column, Figure, Note, Table, visible
from glassformer.generation import Sampling, filtered_probabilities, sample
from glassformer.generation.filters import token_logits
from glassformer.inspection.options import view
from glassformer.inspection.reading import LN2, check_place, check_writes, read
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import MinP, Option, Penalty, Position, Seed, Target, Temperature, Text, TopK, TopP

FILTERS: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""In the order in which they work, with the values that switch them off."""


@dataclass
class NextView(View):
    """Everything about one choice. Arrays are (V,), indexed by token id, in fp32."""

    text: str  # what stands before
    tokens: list[str]  # every token of the vocabulary as text
    logits: np.ndarray
    raw: np.ndarray  # the model's probabilities: temperature 1, nothing cut
    tempered: np.ndarray  # after the temperature and, if there is one, the repetition penalty
    sampling_probability: np.ndarray  # after all filters
    cut_by: list[str]  # why a token cannot be drawn: "" (it can), "temperature" (0), "top_k", "top_p" or "min_p"
    entropy: float  # of `raw`, in bits
    sampling_entropy: float  # of `sampling_probability`
    token: int  # that the seed draws
    u: float  # the random number, from 0 to 1
    interval: tuple[float, float]  # the token's part of 0 to 1, all tokens being laid end to end in the order of ids
    sampling: Sampling
    top: int = 10  # rows that are drawn

    def figures(self) -> list[Figure]:
        shown = [int(i) for i in np.argsort(-self.raw, kind="stable")[: self.top]]
        if self.token not in shown:
            shown.append(self.token)
        parts = self.raw, self.tempered, self.sampling_probability
        rows: list[list[Any]] = [
            [self.tokens[i], self.raw[i], self.logits[i], *(part[i] for part in parts[1:]), self._why(i)] for i in shown
        ]
        others = [i for i in range(len(self.tokens)) if i not in set(shown)]
        cut = sum(bool(self.cut_by[i]) for i in others)
        rest = [float(part[others].sum()) for part in parts]
        footer = [[f"{len(others):,} others", rest[0], None, *rest[1:], f"{cut:,} cut" if cut else ""]]
        columns = (
            Column("token", "token"),
            Column("model", "share", role="share"),
            Column("logit", "number", digits=2),
            Column(f"T={self.sampling.temperature:g}", "share"),
            Column("drawn from", "share", role="value"),
            Column("why not"),
        )
        kept, drawn = sum(not why for why in self.cut_by), visible(self.tokens[self.token])
        return [
            Note(f"after {end_of(self.text)}"),
            Table("", columns, rows, frozenset([shown.index(self.token)]), footer if others else []),
            Note(
                f"{plural(len(self.tokens), 'token')}, {kept:,} of which can be drawn. Entropy {self.entropy:.2f} bits "
                f"by the model (as unsure as among {2**self.entropy:,.1f} equal ones), {self.sampling_entropy:.2f} in "
                "the draw."
            ),
            Note(
                f"All tokens laid end to end make a line from 0 to 1. Seed {self.sampling.seed} gives u = "
                f"{self.u:.4f}; {drawn!r} is from {self.interval[0]:.4f} to {self.interval[1]:.4f}."
            ),
        ]

    def _why(self, i: int) -> str:
        return "drawn" if i == self.token else self.cut_by[i]


@view(
    'glassformer look next smollm2-135m-instruct "Once upon a time there was a"',
    'glassformer look next runs/demo-1 "To be, or not to " --temperature 0.8 --top-k 5 --seed 1',
)
def next_token(
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    *,
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = 0,
    position: Position = -1,
    top: Annotated[int, Option("How many rows to show; --json has the whole vocabulary.", ge=0)] = 10,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> NextView:
    """The whole distribution over what comes after a text, or after one of its tokens.

    Shows also what temperature and filters leave of it, why they cut a token, and the token that this seed samples (the
    first token of `generate`).

    Raises:
        UsageError: the model does not generate text, the text is too long, or there is no such position.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    check_writes(model)
    target = "" if target is None and "target" in model.answers else target
    seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    logits_TV = seen.logits()
    place = check_place("position", position, len(logits_TV))
    before = seen.ids[: place + 1]
    found = explain(logits_TV[place], before, tokenizer, sampling)
    return replace(found, text=text if place == len(logits_TV) - 1 else tokenizer.decode(before), top=top)


def explain(logits_V: Tensor, before: list[int], tokenizer: Tokenizer, sampling: Sampling) -> NextView:
    """What happens between logits (V,) and the token: every stage, by the functions that generation uses."""
    logits_1V = token_logits(logits_V[None], None, tokenizer.missing_ids)
    context = torch.tensor([before]) if before else None
    some = replace(sampling, **FILTERS)
    p_V = tempered_V = filtered_probabilities(logits_1V, some, context)[0]
    cut_by = ["temperature" if sampling.temperature == 0 and not p else "" for p in tempered_V.tolist()]
    for name, off in FILTERS.items():
        if (value := getattr(sampling, name)) != off:
            some = replace(some, **{name: value})
            after_V = filtered_probabilities(logits_1V, some, context)[0]
            for i in ((after_V == 0) & (p_V > 0)).nonzero().flatten().tolist():
                cut_by[i] = name
            p_V = after_V
    token = int(sample(p_V[None], [torch.Generator().manual_seed(sampling.seed)]))
    line_V = p_V.double().cumsum(dim=0)
    line_V = line_V / line_V[-1]
    raw_V = logits_1V[0].softmax(dim=-1)
    missing = set(tokenizer.missing_ids) | set(range(tokenizer.vocab_size, len(logits_V)))
    return NextView(
        text=tokenizer.decode(before),
        tokens=[f"<{i}>" if i in missing else tokenizer.token_text(i) for i in range(len(logits_V))],
        logits=logits_V.float().numpy(),
        raw=raw_V.numpy(),
        tempered=tempered_V.numpy(),
        sampling_probability=p_V.numpy(),
        cut_by=cut_by,
        entropy=entropy(raw_V),
        sampling_entropy=entropy(p_V),
        token=token,
        u=float(torch.rand(1, generator=torch.Generator().manual_seed(sampling.seed), dtype=torch.float64)),
        interval=(float(line_V[token - 1]) if token else 0.0, float(line_V[token])),
        sampling=sampling,
    )


def entropy(p_V: Tensor) -> float:
    """In bits (Shannon 1948).

    >>> entropy(torch.tensor([0.5, 0.25, 0.25]))
    1.5
    """
    return float(torch.special.entr(p_V.double()).sum()) / LN2


def end_of(text: str, most: int = 50) -> str:
    """The end of a text, quoted."""
    return repr(text if len(text) <= most else "…" + text[-most:])
