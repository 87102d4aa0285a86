"""Cross-entropies, and rows of unequal length as tensors.

`linear_cross_entropy` works in pieces: the logits of all positions never exist at once.

    hidden (N, C) ──► a few rows ──► @ weight^T ──► logits (n, V) ──► loss, d hidden (n, C), d weight (V, C)

With V = 50,257 and 16 windows of 1,024 tokens the logits alone are 3.3 GB in fp32, and their gradient as much again;
everything else of a 124 M model is small beside that. The gradient of a cross-entropy is known as soon as the logits
are (softmax minus one at the target), so both products of the backward pass are made while they are at hand, and the
logits are dropped. The same three products are made as in the plain form: it costs no time. The idea is Liger Kernel's
(Hsu et al. 2024, https://arxiv.org/abs/2410.10989, sect. 3.2); this is plain PyTorch, for every device.

N rows (positions), n rows of a piece, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from glassformer.data.batches import IGNORED
from glassformer.errors import DataError
from glassformer.evaluation.rows import RowLosses
from glassformer.models import Decoder

PIECE_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}  # of fp32 logits at once: an L3 cache; enough rows to fill a GPU


def linear_cross_entropy(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    bias_V: Tensor | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Sum of -log softmax(hidden weight^T + bias)[target] over the rows that count, and how many those are.

    label_smoothing: this share of each target is spread over all V (Szegedy et al. 2015,
    https://arxiv.org/abs/1512.00567, section 7).

    Products are made in autocast's type, or else the inputs' own; exponentials and sums in fp32 at least (doubles stay
    doubles). Gradients can be taken once, not twice. `plain_linear_cross_entropy` is the readable twin.

    Returns:
        (sum, count): the sum in fp32 or float64, the count in int64; both 0-dim, on the inputs' device.
    """
    loss = _LinearCrossEntropy.apply(
        hidden_NC, weight_VC, bias_V, targets_N, ignore_index, label_smoothing, torch.is_grad_enabled()
    )
    return loss, (targets_N != ignore_index).sum()


def plain_linear_cross_entropy(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    bias_V: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The same as `linear_cross_entropy`, with all logits at once: the readable twin."""
    logits_NV = F.linear(hidden_NC, weight_VC, bias_V)
    return summed_cross_entropy(logits_NV, targets_N, label_smoothing), (targets_N != IGNORED).sum()


def rows_at_once(vocab_size: int, device: str) -> int:
    """How many rows of fp32 logits make one piece."""
    return max(1, PIECE_BYTES.get(device, PIECE_BYTES["cuda"]) // (4 * vocab_size))


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward pass; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: Tensor,
        weight_VC: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        ignore_index: int,
        label_smoothing: float,
        differentiate: bool,
    ) -> Tensor:
        N, C = hidden_NC.shape
        V = weight_VC.shape[0]
        device = hidden_NC.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NC.dtype
        full = torch.promote_types(dtype, torch.float32)
        wanted = [differentiate and needed for needed in ctx.needs_input_grad[:3]]
        d_hidden = torch.empty_like(hidden_NC) if wanted[0] else None
        d_weight = torch.zeros_like(weight_VC, dtype=full) if wanted[1] else None
        d_bias = torch.zeros_like(bias_V, dtype=full) if wanted[2] and bias_V is not None else None
        loss = torch.zeros((), dtype=full, device=hidden_NC.device)
        with torch.autocast(device, enabled=False):
            weight = weight_VC.to(dtype)
            bias = None if bias_V is None else bias_V.to(dtype)
            for start in range(0, N, rows_at_once(V, device)):
                rows = slice(start, start + rows_at_once(V, device))
                hidden_nC = hidden_NC[rows].to(dtype)
                counts_n1 = (targets_N[rows] != ignore_index).unsqueeze(1)
                target_n1 = targets_N[rows].unsqueeze(1).where(counts_n1, 0)
                logits_nV = F.linear(hidden_nC, weight, bias).to(full)
                target_logit_n1 = logits_nV.gather(1, target_n1)
                mean_n1 = logits_nV.mean(dim=1, keepdim=True) if label_smoothing else target_logit_n1
                top_n1 = logits_nV.amax(dim=1, keepdim=True)
                d_nV = logits_nV.sub_(top_n1).exp_()
                total_n1 = d_nV.sum(dim=1, keepdim=True)
                asked_n1 = (1 - label_smoothing) * target_logit_n1 + label_smoothing * mean_n1
                loss += (top_n1 + total_n1.log() - asked_n1).where(counts_n1, 0).sum()
                if not any(wanted):
                    continue
                # d loss / d logits = softmax - one at the target (or what is asked there and elsewhere, with label
                # smoothing), and 0 in rows that do not count. Here it is times `total`; what it gives is divided
                d_nV.scatter_(1, target_n1, d_nV.gather(1, target_n1) - (1 - label_smoothing) * total_n1)
                if label_smoothing:
                    d_nV.sub_(total_n1 * (label_smoothing / V))
                share_n1 = counts_n1 / total_n1
                d_half_nV = d_nV.to(dtype)
                if d_hidden is not None:
                    d_hidden[rows] = (d_half_nV @ weight).mul_(share_n1)
                if d_weight is not None:  # in one pass where the products are as wide as the sum
                    shared_nC = (hidden_nC * share_n1).to(dtype)
                    if dtype == full:
                        d_weight.addmm_(d_half_nV.mT, shared_nC)
                    else:
                        d_weight += d_half_nV.mT @ shared_nC
                if d_bias is not None:
                    d_bias += (share_n1.mT @ d_nV).squeeze(0)
        ctx.save_for_backward(
            d_hidden,
            None if d_weight is None else d_weight.to(weight_VC.dtype),
            None if d_bias is None or bias_V is None else d_bias.to(bias_V.dtype),
        )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The saved gradients, times that of the sum."""
        return (*(None if d is None else d * d_loss.to(d.dtype) for d in ctx.saved_tensors), None, None, None, None)


def summed_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum over the targets that count, logits (..., V) and targets (...); in fp32 at least, doubles stay doubles."""
    full = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(
        logits.flatten(0, -2).to(full),
        targets.flatten(),
        reduction="sum",
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
    )


def hidden_for(model: Any, inputs_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
    """What logits are made of, (B, T, C). In each row of a decoder it is computed as far as there is a target."""
    if not isinstance(model, Decoder):
        return model.hidden(inputs_BT)  # type: ignore[no-any-return]
    places_T = torch.arange(1, targets_BT.shape[1] + 1, device=targets_BT.device)
    lengths_B = ((targets_BT != IGNORED) * places_T).amax(dim=1)
    return model.hidden(inputs_BT, documents_BT=documents_BT, lengths_B=lengths_B)


def token_log_probs(
    model: Any, inputs_BT: Tensor, targets_BT: Tensor, temperature: float = 1.0, rows_N: Tensor | None = None
) -> Tensor:
    """log p of every target under a decoder, (B, T) in fp32 at least; 0 where a target is -100.

    Logits are made for the targets that count alone, in pieces (`rows_at_once`), and made again in the backward pass,
    so that they never exist all at once. temperature: divides the logits, as in sampling. rows_N: of each row of
    targets (N, T) the row of inputs that it belongs to, where several ask of the same; then (N, T) comes out.
    """
    hidden_BTC = model.hidden(inputs_BT) if rows_N is not None else hidden_for(model, inputs_BT, targets_BT)
    if rows_N is not None:
        hidden_BTC = hidden_BTC[rows_N]
    counts_BT = targets_BT != IGNORED
    n = rows_at_once(model.config.vocab_size, targets_BT.device.type)

    def piece(hidden_nC: Tensor, targets_n: Tensor) -> Tensor:
        logits_nV = model.logits(hidden_nC)
        logits_nV = logits_nV.to(torch.promote_types(logits_nV.dtype, torch.float32)) / temperature
        return -F.cross_entropy(logits_nV, targets_n, reduction="none")

    pairs = zip(hidden_BTC[counts_BT].split(n), targets_BT[counts_BT].split(n), strict=True)
    pieces = [
        checkpoint(piece, *pair, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else piece(*pair)
        for pair in pairs
    ]
    log_probs_N = torch.cat(pieces)
    zeros_BT = torch.zeros(targets_BT.shape, dtype=log_probs_N.dtype, device=log_probs_N.device)
    return zeros_BT.masked_scatter(counts_BT, log_probs_N)


def number_of(targets: Tensor) -> int | Tensor:
    """How many targets count: an int on the CPU; a 0-dim tensor on a GPU, where reading it would wait for all work in
    flight, and inside `torch.compile`."""
    count = (targets != IGNORED).sum()
    known = targets.device.type == "cpu" and not torch.compiler.is_compiling()
    return int(count) if known else count


def row_losses(logits: Tensor, targets: Tensor) -> RowLosses:
    """Logits (B, T, V) and targets (B, T), or (B, V) and (B,) -> the loss of each row."""
    return rows_of(*place_losses(logits.flatten(0, -2), targets.flatten()), targets)


def place_losses(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """(losses, hits) of every place, each (N,): 0 and False where there is no target."""
    full = torch.promote_types(logits_NV.dtype, torch.float32)
    losses_N = F.cross_entropy(logits_NV.to(full), targets_N, reduction="none", ignore_index=IGNORED)
    return losses_N, logits_NV.argmax(dim=1) == targets_N  # no class is called -100


def rows_of(losses: Tensor, hits: Tensor, targets: Tensor) -> RowLosses:
    """Losses and hits of every place of `targets` (B, T) or (B,), in order, added up row by row."""
    B = len(targets)
    return RowLosses(
        losses.view(B, -1).sum(dim=1, dtype=torch.float64),
        (targets != IGNORED).view(B, -1).sum(dim=1),
        hits.view(B, -1).sum(dim=1),
    )


def padded(sequences: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Sequences of any lengths -> (ids (B, T) padded on the right, lengths (B,)), both int64. T: the longest."""
    lengths = [len(ids) for ids in sequences]
    ids_BT = torch.full((len(sequences), max(lengths, default=0)), fill)
    for row, ids in enumerate(sequences):
        ids_BT[row, : len(ids)] = torch.as_tensor(np.asarray(ids, dtype=np.int64))
    return ids_BT, torch.tensor(lengths, dtype=torch.int64)


def check_not_empty(sequences: Sequence[Sequence[int]], what: str) -> None:
    """Raise a `DataError` for a batch of no examples, or an example without a token, which attention cannot read."""
    if not len(sequences):
        raise DataError("a batch needs 1 example and has 0; give at least one")
    for number, ids in enumerate(sequences):
        if not len(ids):
            raise DataError(f"example {number} of a batch has an empty {what}; it needs 1 token, so leave it out")
