"""The feed-forward as questions: what excites a neuron, and what it then says.

Each hidden neuron of a feed-forward multiplies the vector of a token with a row of numbers (a question), and in answer
adds a column of numbers to it, as strongly as the answer is yes. Geva et al. 2021, https://arxiv.org/abs/2012.14913:
the rows are keys that fit certain texts, the columns values that promote certain tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.inspection.excitations import BEFORE, NOTHING, Best, Sums, listen, windows
from glassformer.inspection.neuron_views import Excitation, Neuron, NeuronsView
from glassformer.inspection.options import Corpus, Layer, Top, view
from glassformer.inspection.reading import reader_of
from glassformer.inspection.weights import matrix_of
from glassformer.layers import Experts, GatedFeedForward, LayerNorm, ZeroCenteredRMSNorm
from glassformer.processors.tokenizers import Tokenizer
from glassformer.renamed import old_arguments

CONTEXTS = 3  # of each neuron, where many are told
SAID = 10  # tokens that a neuron promotes, and suppresses


@old_arguments(tokenizer="input_tokenizer", texts="corpus")
@view("glassformer look neurons runs/demo-1 --layer 1 --neuron 7")
def neurons(
    model: Any,
    input_tokenizer: Tokenizer,
    corpus: Corpus,
    *,
    layer: Layer = 0,
    neuron: Annotated[
        int | None, Field(description="Of this neuron; left out, the most selective of the layer.")
    ] = None,
    top: Top = 10,
    window: Annotated[int, Field(ge=1, description="Tokens that are read together, block_size at most.")] = 256,
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000, description="Where to stop reading.")] = 100_000,
    threshold: Annotated[
        float | None, Field(description="Above which a neuron counts as active; default 0, of a gated layer its rms.")
    ] = None,
) -> NeuronsView:
    """Read texts, and tell what excites the neurons of a feed-forward and what they promote.

    Of an encoder-decoder it is the encoder that reads, with its own tokenizer. Memory does not grow with the texts: of
    each neuron the highest activations and a few sums are kept.

    Raises:
        UsageError: there is no such layer or neuron or no text, or the layer is a mixture of experts.
    """
    tokenizer, texts = input_tokenizer, corpus
    stack = reader_of(model, tokenizer)
    block, layer = _block(stack, layer)
    gated, F = isinstance(block.feedforward, GatedFeedForward), stack.config.n_hidden
    if neuron is not None and not -F <= neuron < F:
        raise UsageError(f"neuron={neuron} is out of range; layer {layer} has {F:,} (0 to {F - 1:,})")
    causal = stack.writes
    skip = 1 if causal and tokenizer.starts_with is None else 0
    window = min(window, stack.config.block_size)
    kept = listen(
        stack,
        windows(stack, tokenizer, [texts] if isinstance(texts, str) else texts, window, max_tokens),
        f"blocks.{layer}.feedforward.hidden",
        top=top if neuron is not None else CONTEXTS,
        skip=skip,
        threshold=threshold if threshold is not None else None if gated else 0.0,
        both=gated,
    )
    if kept is None:
        raise UsageError("there is no token to excite a neuron; give a text of two tokens or more")
    kurtosis = _kurtosis(kept)
    chosen = [neuron % F] if neuron is not None else kurtosis.topk(min(top, F)).indices.tolist()
    said_NV, how = output_directions(stack, block, chosen, tokenizer.vocab_size)
    return NeuronsView(
        layer=layer,
        n_neurons=F,
        n_tokens=kept.n,
        n_texts=kept.n_texts,
        skipped=skip,
        window=window,
        threshold=kept.threshold,
        gated=gated,
        silent=int((kept.active == 0).sum()),
        neurons=[
            _neuron(kept, n, float(kurtosis[n]), gated, None if said_NV is None else said_NV[i], tokenizer)
            for i, n in enumerate(chosen)
        ],
        direction=how,
    )


def _block(stack: Any, layer: int) -> tuple[Any, int]:
    L = len(stack.blocks)
    if not -L <= layer < L:
        raise UsageError(f"layer={layer} is out of range; the model has {L} (0 to {L - 1})")
    block = stack.blocks[layer]
    if isinstance(block.feedforward, Experts):
        raise UsageError(
            f"layer {layer % L} is a mixture of {len(block.feedforward.experts)} experts, whose neurons meet only what "
            f"is sent to them; watch one by trace(model, 'blocks.{layer % L}.feedforward.experts.0.hidden')"
        )
    return block, layer % L


def _kurtosis(kept: Sums) -> Tensor:
    """(F,) from the sums of powers; 0 for a neuron that never changes."""
    n = kept.n
    m1, m2, m3, m4 = kept.total / n, kept.squares / n, kept.cubes / n, kept.fourths / n
    variance = m2 - m1**2
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    flat = variance <= 1e-12 * m2
    return torch.where(flat, 0.0, fourth / torch.where(flat, 1.0, variance) ** 2 - 3)


def _neuron(kept: Sums, n: int, kurtosis: float, gated: bool, said_V: Tensor | None, tokenizer: Tokenizer) -> Neuron:
    mean = float(kept.total[n]) / kept.n
    promotes: list[tuple[str, float]] = []
    suppresses: list[tuple[str, float]] = []
    if said_V is not None:
        k = min(SAID, len(said_V))
        for found, largest in ((promotes, True), (suppresses, False)):
            best = said_V.topk(k, largest=largest)
            tokens = map(tokenizer.token_text, best.indices.tolist())
            found += list(zip(tokens, best.values.tolist(), strict=True))
    return Neuron(
        neuron=n,
        active=int(kept.active[n]) / kept.n,
        mean=mean,
        std=max(float(kept.squares[n]) / kept.n - mean * mean, 0.0) ** 0.5,
        least=float(kept.least[n]),
        most=float(kept.highest.values[0, n]),
        kurtosis=kurtosis,
        contexts=_excitations(kept.highest, n, 1, tokenizer),
        lowest=_excitations(kept.lowest, n, -1, tokenizer) if gated else [],
        promotes=promotes,
        suppresses=suppresses,
    )


def _excitations(best: Best, n: int, sign: int, tokenizer: Tokenizer) -> list[Excitation]:
    spaced = _begins_words(tokenizer)
    made = []
    for value, (text, position, *ids) in zip(best.values[:, n].tolist(), best.meta[:, n].tolist(), strict=True):
        tokens = [(" " if spaced(i) else "") + tokenizer.token_text(i) for i in ids if i != NOTHING]
        made.append(Excitation(sign * value, tokens, BEFORE - ids[:BEFORE].count(NOTHING), text, position))
    return made


def _begins_words(tokenizer: Tokenizer) -> Callable[[int], bool]:
    """Whether a token wants a space before it, which vocabularies of words leave out."""
    if tokenizer.kind == "words":
        return lambda i: True
    if tokenizer.kind != "wordpiece":
        return lambda i: False
    model = json.loads(tokenizer.to_json())["model"]
    prefix = model["continuing_subword_prefix"]
    inside = {i for token, i in model["vocab"].items() if token.startswith(prefix)}
    return lambda i: i not in inside


def output_directions(stack: Any, block: Any, chosen: Sequence[int], n_tokens: int) -> tuple[Tensor | None, str]:
    """What neurons add to the logits for each unit of activation, if nothing came after them: (N, tokens); and in
    words how it is computed, or why it is not.

    W_U (g * w): the neuron's column w of the down-projection through the norms that stand between it and the
    unembedding W_U, frozen at a divisor of 1, so that their scales g are left (of a layer norm, also what it does to
    the mean). What later blocks make of it is left out.
    """
    head = getattr(stack, "head", None)
    if head is None or getattr(stack.config, "token_head", "vocabulary") != "vocabulary":
        return None, "What it promotes is not told: these vectors are not asked for tokens (there is no unembedding)."
    if getattr(stack, "transform", None) is not None:
        return None, "What it promotes is not told: another layer with an activation stands before the unembedding."
    w_CN = matrix_of(block.feedforward.down)[:, list(chosen)].float()
    around = block.norms("feedforward")
    norms = [norm for norm in (around.behind, around.of_sum, stack.final_norm) if norm is not None]
    for norm in norms:
        w_CN = through_frozen(norm, w_CN)
    said_NV = (matrix_of(head).float() @ w_CN).T[:, :n_tokens] * stack.config.logit_scale
    through = "the norm behind it and the final norm" if len(norms) > 1 else "the last norm" if norms else "no norm"
    return said_NV.cpu(), (
        f"Promoted and suppressed: the neuron's column of the down-projection, through {through} (its scale, with a "
        "divisor of 1), times the unembedding: what one unit of activation adds to each logit, were that divisor 1 and "
        "no block behind it. A negative activation says the opposite."
    )


def through_frozen(norm: nn.Module, x_CN: Tensor) -> Tensor:
    """What is left of a norm when its divisor is 1: it takes the mean away if it is a layer norm, and scales."""
    weight = norm.weight.detach().float()  # type: ignore[union-attr, operator]
    if isinstance(norm, LayerNorm):
        x_CN = x_CN - x_CN.mean(dim=0)
    return x_CN * (1 + weight if isinstance(norm, ZeroCenteredRMSNorm) else weight)[:, None]


__all__ = ["neurons"]
