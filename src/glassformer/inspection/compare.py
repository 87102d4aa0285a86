"""One choice seen in several ways, side by side: at several temperatures, or by several models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures import Column, Figure, Note, Table, number
from glassformer.inspection.next_token import NextView, end_of, next_token
from glassformer.inspection.options import view
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import MinP, Option, Seed, Text, TopK, TopP


@dataclass
class CompareView(View):
    """N distributions over the next token."""

    text: str
    names: list[str]  # (N,)
    tokens: list[str]  # the union of their most likely tokens
    probability: np.ndarray  # (tokens, N), what is drawn from; NaN where a model has no such token
    entropy: list[float]  # (N,) of it, in bits
    drawn: list[str]  # (N,) what the seed draws

    def figures(self) -> list[Figure]:
        columns = [Column("token", "token"), *(Column(name, "share", role="share") for name in self.names)]
        rows: list[list[Any]] = [
            [token, *(None if p != p else float(p) for p in line)]
            for token, line in zip(self.tokens, self.probability, strict=True)
        ]
        footer = [["all others", *(max(0.0, 1.0 - float(p)) for p in np.nansum(self.probability, axis=0))]]
        draws = [
            (n, number(bits, 2), token) for n, bits, token in zip(self.names, self.entropy, self.drawn, strict=True)
        ]
        return [
            Note(f"after {end_of(self.text)}"),
            Table("", columns, rows, footer=footer),
            Table("", (Column(""), Column("entropy, bits"), Column("the seed draws", "token")), draws),
        ]


def compare(views: Mapping[str, NextView], *, top: int = 8) -> CompareView:
    """`next_token` views beside each other, each under its name. Tokens are identified by their text, so that models
    with different tokenizers can be compared.

    Raises:
        UsageError: there are none.
    """
    if not views:
        raise UsageError("nothing to compare; give at least one view of next_token")
    best: dict[str, float] = {}
    tables = []
    for each in views.values():
        p_V = each.sampling_probability
        tables.append({each.tokens[i]: float(p) for i, p in reversed(list(enumerate(p_V)))})
        for i in np.argsort(-p_V, kind="stable")[:top]:
            best[each.tokens[i]] = max(best.get(each.tokens[i], 0.0), float(p_V[i]))
    tokens = sorted(best, key=lambda token: -best[token])[: 2 * top]
    return CompareView(
        text=next(iter(views.values())).text,
        names=list(views),
        tokens=tokens,
        probability=np.array([[table.get(token, math.nan) for table in tables] for token in tokens], dtype=np.float32),
        entropy=[each.sampling_entropy for each in views.values()],
        drawn=[each.tokens[each.token] for each in views.values()],
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
    temperature: Annotated[
        Sequence[float], Option("Repeat for more than one; default: 0.5, 1 and 2.", max_length=16)
    ] = (),
    others: Annotated[
        Sequence[str],
        Option("Other models, all at one temperature.", max_length=16, flag="with"),
    ] = (),
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    top: Annotated[int, Option("How many tokens of each to show.", ge=1)] = 8,
    source_tokenizer: Tokenizer | None = None,
    open_model: Callable[[str], Any],
) -> CompareView:
    """The next token of one text at several temperatures, or by several models.

    Raises:
        UsageError: several models and several temperatures, or a model that does not generate text.
    """
    if others and len(temperature) > 1:
        raise UsageError("several models and several temperatures were given; compare the ones or the others")
    subjects = [(name, model, tokenizer, source_tokenizer)]
    for other in map(open_model, others):
        subjects.append((other.name, other.model, other.tokenizer, other.source_tokenizer))
    found: dict[str, NextView] = {}
    for path, one, its_tokenizer, its_source in subjects:
        for degree in temperature or ([1.0] if others else [0.5, 1.0, 2.0]):
            label = path.rstrip("/").rpartition("/")[2] if others else f"T={degree:g}"
            while label in found:
                label += "'"
            draw: dict[str, Any] = {"temperature": degree, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
            found[label] = next_token(one, its_tokenizer, text, source_tokenizer=its_source, **draw)
    return compare(found, top=top)
