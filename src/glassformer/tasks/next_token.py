"""Next token: at every position, how surprised is the model by the token that came?

document of a text    To be , or not to be <|endoftext|> That is the question <|endoftext|> ...
inputs                To be ,  or not
targets               be ,  or not to
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from glassformer.data import TokenBatches
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.bigram import bigram_loss
from glassformer.evaluation.estimate import LossEstimate, Metrics, WindowLosses
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.figures.primitives import Figure, Note
from glassformer.generation import generate
from glassformer.models import Decoder, ModelConfig
from glassformer.tasks.base import Batch, Batches, Loss
from glassformer.tasks.held_out import whole_split
from glassformer.tasks.losses import (
    IGNORED,
    hidden_for,
    linear_cross_entropy,
    number_of,
    padded,
    place_losses,
    row_losses,
    rows_at_once,
    rows_of,
    summed_cross_entropy,
)
from glassformer.tasks.text import TextTask

EXAMPLE_TOKENS = 1024  # of `example_batch`, about
MOST_COUNTED = 20_000_000  # tokens of a text in which every token of the vocabulary is looked for


class NextToken(TextTask):
    """Cross-entropy in nats, summed over the targets that count.

    A batch is (inputs, targets), both (B, T) ids; a target of -100 does not count. With `data.document_mask` it is
    (inputs, documents, targets), and a token sees those of its own document.
    """

    data_keys: ClassVar[tuple[str, ...]] = (*TextTask.data_keys, "order", "document_mask")
    asks: ClassVar[str] = "next_token"
    fixed_shape: ClassVar[bool] = True
    planned: ClassVar[bool] = True
    command: ClassVar[str] = "generate"

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of every target.

        Where the logits would fill more than one piece (`rows_at_once`: 32 MiB of fp32 on a CPU, 256 MiB on a GPU),
        the head of a decoder and the loss are computed together, piece by piece, unless a tap reads the logits. The
        result is the same.
        """
        inputs_BT, targets_BT = batch[0], batch[-1]
        if isinstance(model, Decoder) and many_logits(model, targets_BT):
            hidden_BTC = model.hidden(inputs_BT, documents_BT=documents_of(batch))
            loss, _ = linear_cross_entropy(
                hidden_BTC.flatten(0, 1), model.head.weight, targets_BT.flatten(), model.head.bias, IGNORED
            )
        else:
            loss = summed_cross_entropy(logits_of(model, batch), targets_BT)
        return Loss(loss, number_of(targets_BT))

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """The loss of each sequence. Where the logits are many they are made in pieces, as in `loss`; no gradients."""
        inputs_BT, targets_BT = batch[0], batch[-1]
        if not isinstance(model, Decoder) or not many_logits(model, targets_BT):
            return row_losses(logits_of(model, batch), targets_BT)
        n = rows_at_once(model.head.out_features, targets_BT.device.type)
        with torch.no_grad():
            hidden_NC = model.hidden(inputs_BT, documents_BT=documents_of(batch)).flatten(0, 1)  # N = B T
            pieces = [
                place_losses(model.head(hidden_nC), targets_n)
                for hidden_nC, targets_n in zip(hidden_NC.split(n), targets_BT.flatten().split(n), strict=True)
            ]
        losses, hits = zip(*pieces, strict=True)
        return rows_of(torch.cat(losses), torch.cat(hits), targets_BT)

    def collate(self, examples: Sequence[Sequence[int]], random: np.random.Generator | None = None) -> Batch:
        """Token sequences of any lengths -> a batch. A sequence of n tokens holds n - 1 predictions; shorter ones are
        padded on the right: inputs with 0, which no earlier position reads, and targets with -100.

        Raises:
            DataError: no example holds a prediction.
        """
        T = max((len(ids) for ids in examples), default=0) - 1
        if T < 1:
            raise DataError(f"{len(examples)} examples hold no prediction, which needs 2 tokens; give longer ones")
        inputs_BT, _ = padded([ids[:-1] for ids in examples], 0)
        targets_BT, _ = padded([ids[1:] for ids in examples], IGNORED)
        return inputs_BT, targets_BT

    @property
    def masks_documents(self) -> bool:
        """Whether attention stays inside each document of a window."""
        return bool(self.source.data.document_mask)

    def check(self, config: Any) -> None:
        super().check(config)
        if self.masks_documents and config is not None and not isinstance(config, ModelConfig):
            raise UsageError(
                f"data.document_mask masks attention, and a model of kind {config.kind} has none; leave it out"
            )

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        return TokenBatches(
            self.view(split),
            block_size=self.run.sequence_length,
            batch_size=self.run.batch_size // world_size,
            seed=self.run.seed,
            order=self.source.data.order,
            documents=self.masks_documents,
            rank=rank,
            world_size=world_size,
        )

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        view = self.view(split)
        batches = self.held_out_windows(model, split, whole=whole, documents=self.masks_documents)
        return evaluate_rows(model, self.rows, batches)[0].metrics(view.bytes / len(view))

    def sample(self, model: Any, step: int) -> list[Figure]:
        r = self.run
        settings: dict[str, Any] = {"max_new_tokens": r.sample_tokens, "temperature": 0.8, "seed": r.seed + step}
        return [Note(r.sample_prompt + generate(model, self.tokenizer, r.sample_prompt, **settings)[0].text)]

    def example_batch(self, model: Any) -> Batch:
        batch = next(whole_split(model, self.view("validation"), self.masks_documents))
        rows = max(1, EXAMPLE_TOKENS // batch[0].shape[1])
        return tuple(part[:rows] for part in batch)

    def warnings(self) -> list[str]:
        """What the text shows before the first step. A long text is assumed to hold every token."""
        view, V = self.view("train"), self.tokenizer.vocab_size
        counted = len(view) <= MOST_COUNTED and not self.source.inherited
        seen = len(np.unique(view.gather(np.array([0]), len(view)))) if counted else V
        found, tokens = [], self.run.batch_size * self.run.sequence_length
        if len(view) < tokens:
            found.append(
                f"little text: a step reads {tokens:,} tokens and the training split holds {len(view):,}, so every "
                "step sees all of it; try a smaller training.batch_size"
            )
        if seen < V:
            share = (V - seen) / V
            found.append(
                f"vocabulary: {V - seen:,} of {V:,} tokens ({share:.0%}) never occur in the training split, so nothing "
                "is learned about them" + ("; try a smaller tokenizer.vocab_size" if share > 0.3 else "")
            )
        if self.masks_documents and view.documents == 1:
            found.append("data.document_mask=true, and the training split is one document, so the mask changes nothing")
        return found

    def facts(self) -> dict[str, Any]:
        return {"bigram_loss": bigram_loss(self.view("train"), self.view("validation"), self.tokenizer.vocab_size)}


def documents_of(batch: Batch) -> Tensor | None:
    """Which document each input of a batch belongs to, (B, T); None: without a document mask."""
    return batch[1] if len(batch) == 3 else None


def logits_of(model: Any, batch: Batch) -> Tensor:
    """(B, T, V)."""
    documents_BT = documents_of(batch)
    if documents_BT is None:
        logits: Tensor = model(batch[0])
        return logits
    return model.logits(model.hidden(batch[0], documents_BT=documents_BT))  # type: ignore[no-any-return]


def trained_hidden(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Vectors (N, C) and targets (N,) of the places that have a target."""
    targets_BT = batch[-1]
    hidden_BTC = hidden_for(model, batch[0], targets_BT, documents_of(batch))
    counts_BT = targets_BT != IGNORED
    return hidden_BTC[counts_BT], targets_BT[counts_BT]


def trained_loss(model: Any, batch: Batch) -> Loss:
    """As `NextToken.loss`, where many places have no target: logits are made for the others alone."""
    hidden_NC, targets_N = trained_hidden(model, batch)
    if isinstance(model, Decoder) and many_logits(model, targets_N):
        total, _ = linear_cross_entropy(hidden_NC, model.head.weight, targets_N, model.head.bias)
    else:
        total = summed_cross_entropy(model.logits(hidden_NC), targets_N)
    return Loss(total, number_of(batch[-1]))


@torch.no_grad()
def trained_rows(model: Any, batch: Batch) -> RowLosses:
    """As `NextToken.rows`, where many places have no target."""
    hidden_NC, targets_N = trained_hidden(model, batch)
    n = rows_at_once(model.config.vocab_size, targets_N.device.type)
    pairs = zip(hidden_NC.split(n), targets_N.split(n), strict=True)
    losses, hits = zip(
        *(place_losses(model.logits(hidden_nC), targets_n) for hidden_nC, targets_n in pairs), strict=True
    )
    counts_BT = batch[-1] != IGNORED
    losses_BT = torch.zeros(counts_BT.shape, dtype=losses[0].dtype, device=counts_BT.device)
    hits_BT = torch.zeros_like(counts_BT)
    return rows_of(
        losses_BT.masked_scatter(counts_BT, torch.cat(losses)),
        hits_BT.masked_scatter(counts_BT, torch.cat(hits)),
        batch[-1],
    )


def many_logits(model: Decoder, targets_BT: Tensor) -> bool:
    """Whether head and loss go piece by piece: several pieces, an ordinary head, and no tap that reads the logits."""
    if model.tap_logits.listener is not None or not model.head_is_plain:
        return False
    return targets_BT.numel() > rows_at_once(model.head.out_features, targets_BT.device.type)


def evaluate_loss(model: nn.Module, batches: Iterable[Batch], *, bytes_per_token: float | None = None) -> LossEstimate:
    """Mean next-token loss over batches of (inputs, targets), in eval mode; the model's mode is restored.

    Args:
        batches: each (B, T) ids twice. Over `data.windows(...)` every target of a split counts exactly once.
        bytes_per_token: UTF-8 bytes of the split divided by its tokens, for bits per byte.

    Raises:
        DataError: there are no batches.
    """
    return window_losses(model, batches).estimate(bytes_per_token)


def window_losses(model: nn.Module, batches: Iterable[Batch]) -> WindowLosses:
    """The same, with the loss of each window; see `evaluate_loss`."""
    return evaluate_rows(model, NextToken().rows, batches)[0]
