"""The next word as the model sees it: the whole distribution, what temperature and filters make of it, and the draw.

    logits ──► softmax ──► raw        ──► / temperature ──► tempered    ──► filters ──► chance    ──► a dart ──► token

"One feature that I would very much enjoy is the ability to see the underlying distribution for each new word that it
chooses" (3Blue1Brown, Transformers, the tech behind LLMs).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.figures import Column, Figure, Note, Table, number, visible
from glassformer.generation import Sampling, filtered_probabilities, sample
from glassformer.generation.filters import token_logits
from glassformer.inspection.options import MinP, Penalty, Position, Seed, Target, Temperature, Text, TopK, TopP, view
from glassformer.inspection.reading import read
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer

FILTERS = ("top_k", "top_p", "min_p")  # in the order in which they work
OFF: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
NATS = math.log(2)


@dataclass
class NextView(View):
    """Everything about one choice. Arrays are (V,), indexed by token id, in fp32.

    text: what stands before. tokens: every token of the vocabulary as text. logits: of the model. raw: its own
    probabilities (temperature 1, nothing cut). tempered: after the temperature and, if there is one, the repetition
    penalty. chance: after all filters; what is drawn from. cut_by: why a token cannot be drawn: "" (it can),
    "temperature" (0: only the first can), "top_k", "top_p" or "min_p". entropy, entropy_drawn: of `raw` and of
    `chance`, in bits. token, dart: what the seed draws, and where on the line from 0 to 1 it lands; interval: the part
    of the line that belongs to the token, all tokens being laid end to end in the order of their ids.
    """

    text: str
    tokens: list[str]
    logits: np.ndarray
    raw: np.ndarray
    tempered: np.ndarray
    chance: np.ndarray
    cut_by: list[str]
    entropy: float
    entropy_drawn: float
    token: int
    dart: float
    interval: tuple[float, float]
    sampling: Sampling
    top: int = 10

    def figures(self) -> list[Figure]:
        order = np.argsort(-self.raw, kind="stable")
        shown = [int(i) for i in order[: self.top]]
        if self.token not in shown:
            shown.append(self.token)
        rows: list[list[Any]] = [
            [self.tokens[i], self.raw[i], self.logits[i], self.tempered[i], self.chance[i], self._why(i)] for i in shown
        ]
        others = [i for i in range(len(self.tokens)) if i not in set(shown)]
        footer: list[list[Any]] = []
        if others:
            rest = [float(part[others].sum()) for part in (self.raw, self.tempered, self.chance)]
            cut = sum(bool(self.cut_by[i]) for i in others)
            footer.append([f"{len(others):,} others", rest[0], None, *rest[1:], f"{cut:,} cut" if cut else ""])
        columns = (
            Column("token", "token"),
            Column("model", "share", role="share"),
            Column("logit", "number", digits=2),
            Column(f"T={self.sampling.temperature:g}", "share"),
            Column("drawn from", "share", role="value"),
            Column("why not"),
        )
        low, high = self.interval
        kept = sum(not why for why in self.cut_by)
        drawn = visible(self.tokens[self.token])
        return [
            Note(f"after {_end_of(self.text)}"),
            Table("", columns, rows, frozenset([shown.index(self.token)]), footer),
            Note(
                f"{plural(len(self.tokens), 'token')}, {kept:,} of which can be drawn. Entropy {self.entropy:.2f} bits "
                f"by the model (as unsure as among {2**self.entropy:,.1f} equal ones), {self.entropy_drawn:.2f} in the "
                "draw."
            ),
            Note(
                f"All tokens laid end to end make a line from 0 to 1. Seed {self.sampling.seed} throws a dart at "
                f"{self.dart:.4f}; {drawn!r} lies from {low:.4f} to {high:.4f}."
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
    top: Annotated[int, Field(ge=0, description="Rows to show; --json gives every token of the vocabulary.")] = 10,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> NextView:
    """The whole distribution over what comes after a text, or after one of its tokens.

    Raises:
        UsageError: the model says nothing about tokens, the text is too long, or there is no such position.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    check_writes(model)
    target = "" if target is None and "target" in model.answers else target
    seen = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    logits_TV = seen.logits()
    T = len(logits_TV)
    if not -T <= position < T:
        raise UsageError(f"position={position} is out of range; the text has {plural(T, 'token')}")
    before = seen.ids[: T + position + 1 if position < 0 else position + 1]
    view = explain(logits_TV[position], before, tokenizer, sampling)
    return replace(view, text=text if position in (-1, T - 1) else tokenizer.decode(before), top=top)


def explain(logits_V: Tensor, before: list[int], tokenizer: Tokenizer, sampling: Sampling) -> NextView:
    """What happens between logits (V,) and the token: every stage, by the functions that generation uses."""
    logits_1V = token_logits(logits_V[None], None, tokenizer.missing_ids)
    context = torch.tensor([before]) if before else None
    off = replace(sampling, **OFF)
    tempered_V = filtered_probabilities(logits_1V, off, context)[0]
    cut_by = [""] * len(logits_V)
    if sampling.temperature == 0:
        cut_by = ["" if p else "temperature" for p in tempered_V.tolist()]
    last = tempered_V
    for name in FILTERS:
        if getattr(sampling, name) == OFF[name]:
            continue
        off = replace(off, **{name: getattr(sampling, name)})
        after = filtered_probabilities(logits_1V, off, context)[0]
        for i in ((after == 0) & (last > 0)).nonzero().flatten().tolist():
            cut_by[i] = name
        last = after
    generator = torch.Generator().manual_seed(sampling.seed)
    token = int(sample(last[None], [generator]))
    dart = float(torch.rand(1, generator=torch.Generator().manual_seed(sampling.seed), dtype=torch.float64))
    line_V = last.double().cumsum(dim=0)
    line_V = line_V / line_V[-1]
    raw_V = logits_1V[0].softmax(dim=-1)
    return NextView(
        text=tokenizer.decode(before),
        tokens=[tokenizer.token_text(i) if tokenizer_has(tokenizer, i) else f"<{i}>" for i in range(len(logits_V))],
        logits=logits_V.float().numpy(),
        raw=raw_V.numpy(),
        tempered=tempered_V.numpy(),
        chance=last.numpy(),
        cut_by=cut_by,
        entropy=entropy(raw_V),
        entropy_drawn=entropy(last),
        token=token,
        dart=dart,
        interval=(float(line_V[token - 1]) if token else 0.0, float(line_V[token])),
        sampling=sampling,
    )


@dataclass
class CompareView(View):
    """One choice seen in several ways, side by side: at several temperatures, or by several models.

    names: (N,) of the ways. tokens: the union of their most likely tokens, as text. probability: (tokens, N), what is
    drawn from; NaN where a model has no such token. entropy: (N,) of it, in bits. drawn: (N,) what the seed draws.
    """

    text: str
    names: list[str]
    tokens: list[str]
    probability: np.ndarray
    entropy: list[float]
    drawn: list[str]

    def figures(self) -> list[Figure]:
        columns = [Column("token", "token"), *(Column(name, "share", role="share") for name in self.names)]
        rows: list[list[Any]] = [
            [token, *(None if p != p else float(p) for p in line)]
            for token, line in zip(self.tokens, self.probability, strict=True)
        ]
        told = np.nansum(self.probability, axis=0)
        footer = [["all others", *(max(0.0, 1.0 - float(p)) for p in told)]]
        told_of = [
            [name, number(bits, 2), token]
            for name, bits, token in zip(self.names, self.entropy, self.drawn, strict=True)
        ]
        return [
            Note(f"after {_end_of(self.text)}"),
            Table("", columns, rows, footer=footer),
            Table("", (Column(""), Column("entropy, bits"), Column("the seed draws", "token")), told_of),
        ]


def compare(views: Mapping[str, NextView], *, top: int = 8) -> CompareView:
    """Lay several `next_token` views beside each other; tokens are told apart by their text, so that models with other
    tokenizers can be compared.

    Raises:
        UsageError: there are none.
    """
    if not views:
        raise UsageError("nothing to compare; give at least one view of next_token")
    chosen: dict[str, float] = {}
    tables = []
    for each in views.values():
        order = np.argsort(-each.chance, kind="stable")[:top]
        known = {each.tokens[i]: float(p) for i, p in reversed(list(enumerate(each.chance)))}
        tables.append(known)
        for i in order:
            chosen[each.tokens[i]] = max(chosen.get(each.tokens[i], 0.0), float(each.chance[i]))
    tokens = sorted(chosen, key=lambda token: -chosen[token])[: 2 * top]
    return CompareView(
        text=next(iter(views.values())).text,
        names=list(views),
        tokens=tokens,
        probability=np.array([[table.get(token, math.nan) for table in tables] for token in tokens], dtype=np.float32),
        entropy=[view.entropy_drawn for view in views.values()],
        drawn=[view.tokens[view.token] for view in views.values()],
    )


@view(
    'glassformer look compare smollm2-135m-instruct "Once upon a time there was a" --temperature 0.5 --temperature 1.5',
    'glassformer look compare runs/demo-1 "ROMEO:" --with runs/mine',
)
def compare_models(
    name: str,
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    *,
    temperature: Annotated[Sequence[float], Field(description="May be given more than once; else 0.5, 1 and 2.")] = (),
    others: Annotated[
        Sequence[str],
        Field(description="Other models beside it, all at one temperature.", json_schema_extra={"flag": "with"}),
    ] = (),
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    top: Annotated[int, Field(ge=1, description="The most likely tokens of each.")] = 8,
    source_tokenizer: Tokenizer | None = None,
    open_model: Callable[[str], Any],
) -> CompareView:
    """The distribution over the next token at several temperatures, or by several models.

    Raises:
        UsageError: several models and several temperatures.
    """
    if others and len(temperature) > 1:
        raise UsageError("several models and several temperatures were given; compare the ones or the others")
    views: dict[str, NextView] = {}
    for path in (name, *others):
        if path is not name:
            other = open_model(path)
            model, tokenizer, source_tokenizer = other.model, other.tokenizer, other.source_tokenizer
        for degree in temperature or ([1.0] if others else [0.5, 1.0, 2.0]):
            label = path.rstrip("/").rpartition("/")[2] if others else f"T={degree:g}"
            while label in views:
                label += "'"
            views[label] = next_token(
                model,
                tokenizer,
                text,
                source_tokenizer=source_tokenizer,
                temperature=degree,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                seed=seed,
            )
    return compare(views, top=top)


def entropy(p_V: Tensor) -> float:
    """In bits: how many questions to be answered with yes or no a draw is worth (Shannon 1948).

    >>> entropy(torch.tensor([0.5, 0.25, 0.25]))
    1.5
    """
    return float(torch.special.entr(p_V.double()).sum()) / NATS


def tokenizer_has(tokenizer: Tokenizer, i: int) -> bool:
    """Whether there is a token of this id: some vocabularies have gaps."""
    try:
        tokenizer.token_bytes(i)
    except UsageError:
        return False
    return True


def check_writes(model: Any) -> None:
    """Raises UsageError for a model that writes nothing, such as an encoder, or vectors of words."""
    if not model.writes:
        raise UsageError(
            f"this {type(model).__name__} writes nothing, so that no token comes next; ask a model that "
            "generates, or an encoder with <mask> in the text: glassformer fill"
        )


def _end_of(text: str, most: int = 50) -> str:
    return repr(text if len(text) <= most else "…" + text[-most:])
