"""Writing by diffusion, seen: which step wrote which token, how sure the model was, and the draft after each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from glassformer.figures import Column, Curves, Figure, Table, Tokens
from glassformer.generation.diffusion import diffuse
from glassformer.generation.settings import Sampling
from glassformer.inspection.options import view
from glassformer.inspection.reading import labels_of
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Seed, Temperature, Text, TopK

SHOWN = 12  # drafts of the table


@dataclass
class DiffusionView(View):
    """A text that was written in steps. Of a token that was given, `step` is 0 and `probability` is NaN."""

    tokens: list[str]  # (T,) in the end
    step: list[int]  # (T,) that wrote the token which stayed
    probability: np.ndarray  # (T,) the model's own, when it was written
    drafts: list[str]  # (S,) the text after each step, hidden tokens as ▒
    written: list[int]  # (S,) tokens that each step wrote
    erased: list[int]  # (S,) tokens that each step hid again
    confidence: np.ndarray  # (S,) mean probability of what a step wrote

    def figures(self) -> list[Figure]:
        S = len(self.drafts)
        kept = sorted({round(i) for i in np.linspace(0, S - 1, min(SHOWN, S))})
        columns = [Column("step", "count"), Column("wrote", "count"), Column("hid", "count"), Column("draft", "token")]
        rows = [[i + 1, self.written[i], self.erased[i], self.drafts[i]] for i in kept]
        probability = [None if p != p else float(p) for p in self.probability]
        steps = list(range(1, S + 1))
        return [
            Table("Drafts", columns, rows),
            Tokens("The step that wrote each token", self.tokens, [s or None for s in self.step], "step", digits=0),
            Tokens(
                "Its probability when it was written", self.tokens, probability, "probability", highest=1.0, digits=2
            ),
            Curves.over(
                "Mean probability of what a step wrote", steps, {"mean": list(self.confidence)}, "step", "probability"
            ),
        ]


@view(
    'glassformer look diffusion runs/shakespeare-diffusion-1 "ROMEO: <mask:30> my love."',
    'glassformer look diffusion runs/shakespeare-diffusion-1 "To be" --new-tokens 40 --steps 10 --order confidence',
)
def diffusion(
    model: Any,
    tokenizer: Tokenizer,
    text: Text,
    *,
    new_tokens: Annotated[int | None, Option("Of a text without gaps; default 200.", ge=1)] = None,
    steps: Annotated[int | None, Option("How many steps; default: one for each token.", ge=1)] = None,
    order: Annotated[
        Literal["random", "confidence"],
        Option("What a step writes: random places, or those of the highest confidence."),
    ] = "random",
    remask: Annotated[float, Option("Share of the written tokens, the least sure, that each step hides again.")] = 0.0,
    block: Annotated[int | None, Option("Tokens written together; default: as many as the model reads.", ge=1)] = None,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    seed: Seed = 0,
) -> DiffusionView:
    """A text written by diffusion: which step wrote each token, and how sure the model was.

    Gaps are written <mask> for one token and <mask:40> for forty; a text without gaps is continued.

    Raises:
        UsageError: the model writes no hidden tokens, or an option is out of range.
    """
    sampling = Sampling(temperature=temperature, top_k=top_k, seed=seed)
    drafts = list(
        diffuse(
            model, tokenizer, text, max_new_tokens=new_tokens, steps=steps, order=order, remask=remask, block=block,
            sampling=sampling,
        )
    )  # fmt: skip
    last = drafts[-1]
    step, probability = [0] * len(last.ids), np.full(len(last.ids), np.nan, dtype=np.float32)
    for draft in drafts:
        for place, p in zip(draft.written, draft.probability, strict=True):
            step[place], probability[place] = draft.step, p
    return DiffusionView(
        tokens=labels_of(tokenizer, list(last.ids)),
        step=step,
        probability=probability,
        drafts=[draft.text for draft in drafts],
        written=[len(draft.written) for draft in drafts],
        erased=[len(draft.erased) for draft in drafts],
        confidence=np.array([np.mean(draft.probability) if draft.probability else np.nan for draft in drafts]),
    )
