"""Search neurons by a token: which of them, when active, push its logit up, and which push it down.

W_down's column of a neuron, through the norms that follow at a divisor of 1, times the token's row of the unembedding
less the mean row: what one unit of activation adds to the logit of this token beyond what it adds to all on average
(Geva et al. 2022, https://arxiv.org/abs/2203.14680, sect. 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from glassformer.errors import UsageError
from glassformer.figures import Column, Figure, Note, Table, number, visible
from glassformer.inspection.neurons import through_frozen
from glassformer.inspection.options import view
from glassformer.inspection.reading import stack_of
from glassformer.inspection.stream import check_token_head, token_of
from glassformer.inspection.views import View
from glassformer.inspection.weights import matrix_of
from glassformer.layers import Experts
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Top


@dataclass
class PromotersView(View):
    """The neurons that promote a token, and those that suppress it."""

    token: str
    token_id: int
    scores: np.ndarray  # (L, F) what one unit of activation adds to the logit, beyond the mean of all tokens
    top: int

    def ranked(self, descending: bool = True) -> list[tuple[int, int]]:
        """(layer, neuron), the largest score first, or the smallest."""
        order = np.argsort(-self.scores if descending else self.scores, axis=None, kind="stable")[: self.top]
        return [divmod(int(i), self.scores.shape[1]) for i in order]

    def figures(self) -> list[Figure]:
        def table(title: str, places: list[tuple[int, int]]) -> Table:
            rows = [[f"{layer}.{n}", float(self.scores[layer, n])] for layer, n in places]
            links = [[f"neurons?layer={layer}&neuron={n}"] for layer, n in places]
            columns = [Column("layer.neuron"), Column("adds", "signed", role="weights")]
            return Table(title, columns, rows, links=links)

        token, (L, F) = visible(self.token), self.scores.shape
        deviation = float(self.scores.std())
        return [
            table(f"Neurons that promote {token}", self.ranked()),
            table(f"Neurons that suppress {token}", self.ranked(False)),
            Note(
                f"Of {L * F:,} neurons. adds: to the logit of {token}, beyond the mean of all tokens, for one unit of "
                f"activation, through the last norms at a divisor of 1 and without later blocks. All neurons: "
                f"± {number(deviation)}. A negative activation does the opposite."
            ),
        ]


@view('glassformer look promoters smollm2-135m-instruct " Paris"', "glassformer look promoters runs/demo-1 e")
def promoters(
    model: Any,
    tokenizer: Tokenizer,
    token: Annotated[str, Option("A token of the vocabulary.")],
    *,
    top: Top = 10,
) -> PromotersView:
    """The neurons of all feed-forwards that promote a token, and those that suppress it.

    Raises:
        UsageError: it is not one token, or the model has no linear head over tokens or has experts.
    """
    stack = check_linear_neurons(model)
    chosen = token_of(tokenizer, token, "token")
    unembedding_VC = matrix_of(stack.head).float()[: tokenizer.vocab_size]
    read_C = (unembedding_VC[chosen] - unembedding_VC.mean(dim=0)) * stack.config.logit_scale
    rows = []
    for block in stack.blocks:
        w_CF = matrix_of(block.feedforward.down).float()
        around = block.norms("feedforward")
        for norm in (around.behind, around.of_sum, stack.final_norm):
            w_CF = w_CF if norm is None else through_frozen(norm, w_CF)
        rows.append(read_C @ w_CF)
    return PromotersView(tokenizer.token_text(chosen), chosen, torch.stack(rows).detach().cpu().numpy(), top)


def check_linear_neurons(model: Any) -> Any:
    """The stack of a model whose neurons add to logits in proportion to their activation.

    Raises:
        UsageError: it has no linear head over tokens, or experts.
    """
    check_token_head(model)
    stack, _ = stack_of(model)
    if getattr(stack, "transform", None) is not None or any(isinstance(b.feedforward, Experts) for b in stack.blocks):
        raise UsageError("what a neuron promotes is not linear here: experts, or a layer before the unembedding")
    return stack
